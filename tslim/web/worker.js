// The reader in a thread of its own, so that unpacking never holds up drawing: the two ends of it. They take turns: the
// worker asks for bytes or hands over a part, the page answers.

/** The worker's end. */
function serveReader(scope) {
  let answered = null;
  scope.onmessage = ({ data }) => answered(data);
  const ask = (said) => new Promise((resolve) => {
    answered = resolve;
    scope.postMessage(said, buffersOf(said));
  });
  async function* chunks() {
    for (;;) {
      const { chunk } = await ask({ wanted: true });
      if (!chunk) return;
      yield chunk;
    }
  }
  (async () => {
    try {
      for await (const part of readModel(chunks())) await ask({ part });
      scope.postMessage({ done: true });
    } catch (error) {
      scope.postMessage({ error: error.message, expected: error instanceof ModelError });
    }
  })();
}

/** The page's end: as `readModel`, by a worker that runs `script`; without one where the browser does not let it. */
async function* readModelAside(source, script) {
  const worker = startedWorker(script);
  const heard = worker && (await worker.next().catch(() => null));
  if (!heard) {
    worker?.end();
    yield* readModel(source);
    return;
  }
  const chunks = source[Symbol.asyncIterator]();
  try {
    for (let said = heard; !said.done; ) {
      if (said.error) throw said.expected ? new ModelError(said.error) : new Error(said.error);
      let answer = {};
      if (said.part) yield said.part;
      else answer = { chunk: (await chunks.next()).value };
      said = await worker.next(answer);
    }
  } finally {
    worker.end();
    await chunks.return?.();
  }
}

/** {next: what the worker says next, given an answer, as a promise; end}; null where there are no workers. */
function startedWorker(script) {
  const url = URL.createObjectURL(new Blob([script, "reading.serveReader(self);"], { type: "text/javascript" }));
  let worker;
  try {
    worker = new Worker(url);
  } catch {
    URL.revokeObjectURL(url);
    return null;
  }
  const next = (answer) => new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = (event) => reject(new Error(event.message ?? "the worker cannot be started"));
    if (answer) worker.postMessage(answer, buffersOf(answer));
  });
  const end = () => {
    worker.terminate();
    URL.revokeObjectURL(url);
  };
  return { next, end };
}

/** The memory of all arrays in plain data, to be handed over instead of copied. */
function buffersOf(data, found = new Set()) {
  if (ArrayBuffer.isView(data)) found.add(data.buffer);
  else if (data && typeof data === "object") Object.values(data).forEach((value) => buffersOf(value, found));
  return [...found];
}
