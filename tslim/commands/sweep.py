"""``sweep``: many trainings from one file, and one table of what came of them."""

from tslim.commands.console import Console
from tslim.commands.options import Sweep
from tslim.errors import ConfigError
from tslim.sweeps import engine, table
from tslim.sweeps.plan import read_plan
from tslim.sweeps.single import is_done, perform


def sweep(args: Sweep, console: Console) -> int:
    """Runs what is not done yet, then writes the table of what is."""
    plan = read_plan(args.file)
    if args.only is not None:
        if not 0 <= args.only < len(plan.runs):
            raise ConfigError(f"--only {args.only}: the sweep has trainings 0 to {len(plan.runs) - 1}")
        problem = perform(plan, plan.runs[args.only], args.arch)
        if problem:
            raise ConfigError(f"{plan.runs[args.only].name}: {problem}")
        return 0
    if args.slurm:
        console.written([engine.write_slurm(plan, plan.out / "sweep.sbatch", arch=args.arch)])
        return 0
    waiting = [run for run in plan.runs if not is_done(plan, run)]
    console.line(f"{len(plan.runs)} trainings, {len(plan.runs) - len(waiting)} of them done, in {plan.out}")
    failed = 0
    if waiting and not args.table:
        place = engine.Place(args.address, args.cpus, args.gpus, args.arch)
        if not engine.uses_ray(place):
            console.line(f"without Ray, so here and one after another; several at a time: {engine.INSTALL}")
        finished = engine.run(plan, waiting, place)
        for count, end in enumerate(finished, start=1):
            failed += bool(end.problem)
            console.line(f"{count}/{len(waiting)} {end.run.name}: {end.problem or 'done'}")
    cells = table.entries(plan)
    if not cells:
        raise ConfigError(f"no training of {args.file} is finished: their output is in {plan.out}/*.log")
    console.written(table.write(plan, cells))
    return 1 if failed else 0
