// Where the bytes of the model come from: the page itself, or a file beside it. Both are async iterators.

const {
  ModelError, N_FEATURES, SCALES_WIDTH, PLANE_AXES, LINE_AXES, blockLayout, product, readModelAside,
} = reading;

/** Parts of the page, each as it has arrived; taken out of the page, so that its text is not held twice. */
async function* embeddedBytes() {
  for (let index = 0; ; ++index) {
    const part = await arrived(`part-${index}`);
    if (!part) return;
    const text = part.textContent;
    part.remove();
    yield decodedBase64(text);
    await pause();
  }
}

/** An element of the page once it is whole: when what follows is there, or the page is. */
async function arrived(id) {
  for (;;) {
    const element = document.getElementById(id);
    if (element && (element.nextElementSibling || document.readyState !== "loading")) return element;
    if (document.readyState !== "loading") return null;
    await pause();
  }
}

const pause = () => new Promise((resolve) => setTimeout(resolve));

function decodedBase64(text) {
  let binary;
  try {
    binary = atob(text.trim());
  } catch {
    throw new ModelError("the page is damaged: the model in it cannot be decoded");
  }
  return Uint8Array.from(binary, (c) => c.charCodeAt(0));
}

/** A file beside the page, as it arrives. */
async function* fetchedBytes(url) {
  const cannot = location.protocol === "file:"
    ? "a page opened from a folder may not read it: put both on a web server, or export one page without --split"
    : "is it beside this page?";
  const control = new AbortController();
  let response;
  try {
    response = await fetch(url, { signal: control.signal });
  } catch {
    throw new ModelError(`cannot fetch ${url}: ${cannot}`);
  }
  if (!response.ok) throw new ModelError(`cannot fetch ${url} (${response.status}): is it beside this page?`);
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    if (error instanceof ModelError) throw error;
    // A connection that breaks leaves what has arrived.
  } finally {
    control.abort();
  }
}
