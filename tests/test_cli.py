"""The command line: what it accepts, and that every mistake is one clear line with exit code 2."""

import ast
import dataclasses
import inspect
import io
import json
import re
import warnings
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from tslim import cli, config, files, presets
from tslim.commands import options, parsing
from tslim.commands.console import Console, duration, memory_text
from tslim.errors import BackendError, ConfigError, RunFolderError
from tslim.measuring.evaluate import SweepRow
from tslim.training import events
from tslim.training.run_folder import RunFolder

ROOT = Path(__file__).resolve().parent.parent


def fails(capsys, *words: str) -> str:
    """Runs a command that must fail; returns its one line."""
    code = cli.main(list(words))
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert len(err.splitlines()) == 1 and err.startswith("tslim: "), err
    return err


# What the parser makes of words


def test_train_starts_from_the_quick_preset():
    assert parsing.parse(["train"]).settings == presets.quick()


@pytest.mark.parametrize("words", [["--preset", "paper"], ["--preset=paper"]])
def test_a_preset_sets_the_defaults_and_options_override_it(words):
    parsed = parsing.parse(["train", *words, "--steps", "500", "--schedule.upsilon", "0.3", "--field.decoder", "sh"])
    paper = presets.paper()
    assert parsed.settings == dataclasses.replace(
        paper,
        steps=500,
        schedule=dataclasses.replace(paper.schedule, upsilon=0.3),
        field=dataclasses.replace(paper.field, decoder="sh"),
    )


def test_overrides_may_come_before_the_preset():
    assert parsing.parse(["train", "--steps", "7", "--preset", "tiny"]).settings.steps == 7
    assert parsing.parse(["train", "--steps", "7", "--preset", "tiny"]).settings.batch_rays == presets.tiny().batch_rays


def test_every_setting_has_a_flag_and_the_flag_sets_it():
    """For each field of the config dataclasses: a changed value, given as its flag, arrives."""
    changed = {
        int: 7, float: 0.125, bool: None, tuple[int, ...]: (5, 6), tuple[float, ...]: (0.0, 0.5),
        tuple[float, float]: (0.25, 2.0),
    }  # fmt: skip

    def check(kind, prefix: str, pick):
        for f in dataclasses.fields(kind):
            if dataclasses.is_dataclass(f.type):
                check(f.type, f"{prefix}{f.name}.", lambda c, pick=pick, name=f.name: getattr(pick(c), name))
                continue
            flag = f"--{prefix}{f.name.replace('_', '-')}"
            default = getattr(pick(presets.quick()), f.name)
            if f.type is bool:
                value = not default
                words = [flag if value else f"--{prefix}no-{f.name.replace('_', '-')}"]
            elif f.type in changed:
                value = changed[f.type]
                words = [flag, *map(str, value if isinstance(value, tuple) else [value])]
            else:
                value = next(v for v in f.type.__args__ if v != default)
                words = [flag, value]
            assert value != default
            assert getattr(pick(parsing.parse(["train", *words]).settings), f.name) == value, flag

    check(config.TrainConfig, "", lambda c: c)


@pytest.mark.parametrize("kind", options.COMMANDS.values(), ids=options.COMMANDS)
def test_what_a_command_does_fits_in_a_line_of_help_and_nothing_is_left_out_as_none(kind, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert len(kind.__doc__) <= 80 and kind.__doc__.endswith(".")
    cli.main([kind.__name__.lower(), "--help"])
    out = capsys.readouterr().out
    assert kind.__doc__ in out and "None" not in out


def test_every_option_has_help(capsys):
    for name, kind in options.COMMANDS.items():
        assert parsing.parse([name, "--help"]) is None
        shown = capsys.readouterr().out
        for flag in parsing.options_of(kind):
            assert flag in shown, (name, flag)

    def documented(kind) -> None:
        source = inspect.getsource(kind)
        body = ast.parse(source).body[0].body
        for statement, following in zip(body, [*body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and not dataclasses.is_dataclass(config):
                name = statement.target.id
                if name in ("field", "schedule", "scene", "settings", "options", "serving"):
                    continue
                assert isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant), (kind, name)

    for kind in (*options.COMMANDS.values(), options.SceneOptions, *(vars(config)[n] for n in CONFIGS)):
        documented(kind)


CONFIGS = ("TrainConfig", "FieldConfig", "ScheduleConfig")


def test_every_option_is_read_somewhere():
    """A field of an options or config dataclass that nothing reads is a promise that nobody keeps."""
    read = set()
    for path in (ROOT / "tslim").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
    kinds = [*options.COMMANDS.values(), options.SceneOptions, *(vars(config)[name] for name in CONFIGS)]
    unread = {f"{kind.__name__}.{f.name}" for kind in kinds for f in dataclasses.fields(kind) if f.name not in read}
    # The preset is read from the words before there is an options object, since it sets the other defaults.
    assert unread <= {"Train.preset"}


def test_a_bare_call_shows_the_commands(capsys):
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in options.COMMANDS)


def test_the_version_is_shown(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tslim ")


def test_numbers_may_be_written_as_people_write_them():
    """With commas between them, and with their unit."""
    for words in ("--ranks 16 8", "--ranks 16,8", "--ranks=16,8", "--ranks 16, 8"):
        assert parsing.parse(["eval", "run", *words.split()]).ranks == (16, 8)
    for words in ("--max-mb 4.5", "--max-mb 4.5MB", "--max-mb 4.5 mb", "--max-mb=4.5MB"):
        assert parsing.parse(["slim", "run", "-o", "MB.slim", *words.split()]).max_mb == 4.5
    assert parsing.parse(["slim", "run", "-o", "s.slim", "--min-psnr", "30dB"]).min_psnr == 30
    assert parsing.parse(["slim", "--max-mb", "4", "4 MB", "-o", "s,1.slim"]).model == Path("4 MB")
    assert parsing.parse(["train", "--schedule.bounds", "0.5,2"]).settings.schedule.bounds == (0.5, 2.0)


def test_help_breaks_lines_where_they_are_full_and_nowhere_else(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "900")  # where every explanation has room on one line
    for name, kind in options.COMMANDS.items():
        assert parsing.parse([name, "--help"]) is None
        shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        for f in dataclasses.fields(kind) + (dataclasses.fields(config.TrainConfig) if name == "train" else ()):
            text = f.metadata.get("help", "")
            assert "\n" not in text and any(text in line for line in shown), (name, f.name)


# Mistakes


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("trian", "did you mean train"),
        ("--stps 3", "unknown command --stps"),
        ("train --stps 3", "did you mean --steps"),
        ("train --density-shift 3", "did you mean --field.density-shift"),
        ("train -q", "unknown option -q"),
        ("train --steps", "--steps needs a whole number"),
        ("train --steps many", "--steps many: expected a whole number"),
        ("train --steps 1.5", "--steps 1.5: expected a whole number"),
        ("train --schedule.bounds 1", "--schedule.bounds needs 2 numbers"),
        ("train --field.decoder nerf", "--field.decoder nerf: expected one of mlp, sh"),
        ("train --preset fast", "one of quick, fine, best, demo, paper, tiny"),
        ("train --preset=even", "one of quick, fine, best, demo, paper, tiny (even: quick has more at every size)"),
        ("train --resume=yes", "--resume takes no value"),
        ("train --arch gpu", "vulkan"),
        ("train a b", "unexpected: b"),
        ("eval", "missing: RUN|FILE"),
        ("eval run --ranks 16 eight", "--ranks eight: expected whole numbers, such as 16 8 4"),
        ("slim model.slim --rank 3", "missing: -o PATH"),
        ("slim model.slim -o s.slim --max-mb", "--max-mb needs a number of MB"),
        ("slim model.slim -o s.slim --max-mb 4GB", "--max-mb 4GB: expected a number of MB"),
        ("slim model.slim -o s.slim --min-psnr high", "--min-psnr high: expected a number of dB"),
        ("render model.slim -o x.mp4 --what normals", "--what normals: expected one of rgb, depth, opacity"),
        ("info", "missing: FILE|RUN|SCENE"),
    ],
)
def test_a_wrong_word_is_one_clear_line(capsys, words, expected):
    assert expected in fails(capsys, *words.split())


# Run folders


def started(path: Path) -> RunFolder:
    run = RunFolder(path)
    run.create({"scene": {"path": None}, "train": config.to_dict(presets.tiny()), "version": "0"})
    return run


def progress(step: int) -> events.Progress:
    return events.Progress(step, 100, 2, 0.01, 20.0, 1000.0, 1.5 * step, 3.0, 10.0, 2.0)


def test_a_run_folder_gives_back_its_settings(tmp_path):
    settings = started(tmp_path / "deep" / "run").settings()
    assert config.from_dict(settings["train"]) == presets.tiny()


def test_a_folder_with_a_run_is_refused_and_left_as_it_was(tmp_path):
    run = started(tmp_path / "run")
    before = run.config.read_bytes()
    with pytest.raises(RunFolderError, match="another run.*--resume"):
        run.create({"scene": {}, "train": {}})
    assert run.config.read_bytes() == before


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunFolderError, match="neither empty nor a run"):
        RunFolder(tmp_path).require_free()
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunFolderError, match="is a file"):
            RunFolder(path).require_free()


def test_a_link_that_leads_nowhere_is_no_run_folder_and_one_to_a_folder_is(tmp_path):
    for name, target in (("lost", "nowhere"), ("loop", "loop")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(RunFolderError, match="a link that leads nowhere"):
            RunFolder(tmp_path / name).require_free()
        with pytest.raises(RunFolderError, match="cannot write"), RunFolder(tmp_path / name).owned():
            pass
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    RunFolder(tmp_path / "link").require_free()


def test_a_working_folder_that_is_gone_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    assert cli.main(["train", "--preset", "tiny", "--out", "run"]) == 2
    assert capsys.readouterr().err == "tslim: the working folder is gone: change into another\n"

    def start_without_it() -> None:
        raise BackendError("cpu does not start: no such file or directory") from FileNotFoundError()

    assert cli.guarded(start_without_it) == 2
    assert capsys.readouterr().err == "tslim: the working folder is gone: change into another\n"
    monkeypatch.chdir(tmp_path)
    assert cli.guarded(start_without_it) == 2
    assert capsys.readouterr().err == "tslim: cpu does not start: no such file or directory\n"


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[x] LLVM Fatal Error: Unable to allocate section memory!")]
)
def test_where_memory_ran_out_the_process_is_left_at_once_with_one_line(monkeypatch, capsys, error):
    def spend() -> None:
        raise error

    monkeypatch.setattr(cli, "_ran_out", [])
    assert not cli.has_run_out_of_memory()
    assert cli.guarded(spend) == 2 and cli.has_run_out_of_memory()
    assert capsys.readouterr().err.startswith("tslim: not enough memory: lower --batch-rays")


def test_of_an_option_given_twice_the_message_names_the_last(capsys):
    assert cli.main(["train", "--preset", "tiny", "--preset", "even"]) == 2
    assert "--preset even: expected one of quick" in capsys.readouterr().err


def test_checking_a_folder_makes_nothing(tmp_path):
    RunFolder(tmp_path / "a" / "b").require_free()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"scene": 1}', "\x00"])
def test_a_damaged_config_is_one_error(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunFolderError, match="config.json"):
        RunFolder(tmp_path).settings()


def test_the_log_has_one_object_a_line(tmp_path):
    run = started(tmp_path)
    for step in (25, 50):
        run.log(progress(step))
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert rows[1] == {"step": 50, "rank": 2, "loss": 0.01, "psnr": 20.0, "seconds": 75.0}
    assert run.history() == rows


def test_the_log_holds_psnr_by_rank_and_rank_increases_with_their_cause(tmp_path):
    run = started(tmp_path)
    grew = (events.RankGrew(12, 2, "loss jumped 47 %"),)
    run.log(dataclasses.replace(progress(25), psnr_by_rank={1: 17.5, 2: 20.0}, grew=grew))
    row = run.history()[0]
    assert row["psnr_by_rank"] == {"1": 17.5, "2": 20.0}
    assert row["grew"] == [{"step": 12, "rank": 2, "cause": "loss jumped 47 %"}]


def test_rewinding_drops_what_came_later_and_lines_cut_by_a_crash(tmp_path):
    run = started(tmp_path)
    for step in (25, 50, 75):
        run.log(progress(step))
    with open(run.metrics, "a") as out:
        out.write('{"step": 80, "ra')
    run.rewind(50)
    run.log(progress(60))
    assert [row["step"] for row in run.history()] == [25, 50, 60]


def test_an_unnamed_run_gets_the_next_free_folder(tmp_path):
    assert files.free_path(tmp_path / "lego") == tmp_path / "lego"
    started(tmp_path / "lego")
    assert files.free_path(tmp_path / "lego") == tmp_path / "lego-2"


# What people see


def shown(feed, *, terminal: bool, width: int = 80) -> str:
    out = io.StringIO()
    feed(Console(RichConsole(file=out, force_terminal=terminal, width=width, highlight=False)))
    return out.getvalue()


def a_short_run(console: Console) -> None:
    with console.training(100) as view:
        view.show(events.Started(0, 100, {"factors": 120_000_000}))
        for step in range(1, 101):
            view.show(events.Stepped(step, 1 + step // 50))
            if step == 50:
                view.show(events.RankGrew(step, 2, "loss jumped 47 %"))
            if step % 25 == 0:
                view.show(progress(step))
        view.show(events.Finished(100, 150.0))


def test_without_a_terminal_progress_is_a_few_plain_lines():
    text = shown(a_short_run, terminal=False)
    assert "\x1b" not in text and "━" not in text
    lines = text.splitlines()
    assert len(lines) < 10
    assert "step 50: rank 2, loss jumped 47 %" in lines
    assert lines[-2].startswith("step 100/100") and "finished" in lines[-1]


def test_on_a_terminal_the_bar_shows_everything_and_fits_80_columns():
    out = io.StringIO()
    rich = RichConsole(file=out, force_terminal=True, width=80, highlight=False, color_system=None)
    with Console(rich).training(30_000) as view:
        view.show(progress(12_320))
        view.show(dataclasses.replace(progress(12_345), rays_per_second=123_456.0, seconds_left=5000.0, rank=16))
    for part in ("12345/30000", "loss 0.01000", "20.00 dB", "rank 16", "123k rays/s", "1:23:20 left"):
        assert part in out.getvalue(), part
    plain = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", out.getvalue())
    assert max(map(len, re.split(r"[\r\n]", plain))) <= 80


def test_the_first_estimate_of_the_time_left_is_not_shown_since_it_counts_the_compiler():
    def feed(console: Console) -> None:
        with console.training(100) as view:
            view.show(dataclasses.replace(progress(25), seconds_left=99_999.0))

    assert "left" not in shown(feed, terminal=False)


def test_memory_is_told_by_purpose_the_largest_first():
    assert (
        memory_text({"photographs": 2_000_000, "factors": 120_000_000})
        == "about 122 MB: factors 120 MB, photographs 2.0 MB"
    )


def test_durations_read_as_clocks():
    assert [duration(s) for s in (0, 59.6, 3599, 3600, 7322)] == ["0:00", "1:00", "59:59", "1:00:00", "2:02:02"]


def test_paths_with_brackets_are_shown_as_they_are(tmp_path):
    assert "a[bold]b" in shown(lambda c: c.written([Path("a[bold]b")]), terminal=False)


def test_config_errors_name_the_known_settings():
    with pytest.raises(ConfigError, match="batch_rays"):
        config.from_dict({"batchrays": 3})


def test_a_value_that_lacks_is_named_however_tyro_writes_it():
    known = parsing.options_of(options.Train)
    for name in ("'--steps'", "'('--steps',)'", "'('-s', '--steps')'"):
        said = parsing._in_our_words(f"Missing value for argument {name}. Expected 1 values.", ["train"], known)
        assert said == "--steps needs a whole number"


def test_what_is_deprecated_inside_a_package_is_not_shown(monkeypatch, capsys):
    def act(*args):
        warnings.warn("not for you", DeprecationWarning, stacklevel=1)
        warnings.warn("for you", stacklevel=1)

    monkeypatch.setattr(cli.interrupts, "endable", act)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        cli._exit_code_of(act, ())
    assert capsys.readouterr().err == "tslim: warning: for you\n"


@pytest.mark.parametrize("width", [34, 40, 47, 48, 80])
def test_a_narrow_terminal_cuts_no_number_of_a_table_and_a_title_is_as_it_is(width):
    out = io.StringIO()
    screen = Console(RichConsole(file=out, width=width, force_terminal=True, color_system=None))
    screen.sweep_table([SweepRow(16, 36_000_000, 33.1234, 0.98765, 1234.0)], title="scene [a]")
    screen.facts_table([("name [b]", "value [c]")], title="folder [d]")
    shown = out.getvalue()
    for text in ("scene [a]", "rank", "36.00", "33.12", "0.9877", "ms/frame", "1234", "name [b]", "value [c]", "[d]"):
        assert text in shown
    assert "…" not in shown and max(map(len, shown.splitlines())) <= width
