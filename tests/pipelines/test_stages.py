from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

import pipelines.ray_session
from pipelines import cli, stages
from pipelines.stages import STAGES, Step, plan, run_steps
from recsys.config import ExperimentConfig, load_config
from recsys.errors import ConfigError, DataError, RecsysError
from recsys.manifest import is_current, stage_directory


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands for Ray; records when a session is opened and closed."""
    log: list[str] = []

    @contextmanager
    def session(config: object) -> Iterator[None]:
        log.append("open")
        yield
        log.append("close")

    monkeypatch.setattr(pipelines.ray_session, "ray_session", session)
    return log


@pytest.fixture
def config(write_config: Callable[..., Path]) -> ExperimentConfig:
    return load_config(write_config())


def step(config: ExperimentConfig, name: str, log: list[str]) -> Step:
    """A step that writes a directory of its name, once."""
    directory = config.workspace / name

    def run() -> Path:
        if not is_current(directory, "key"):
            log.append(name)
            with stage_directory(directory, "key"):
                pass
        return directory

    return Step("prepare" if name == "prepared" else name, "", run)


def printed(config: ExperimentConfig, steps: list[Step]) -> list[str]:
    out = io.StringIO()
    run_steps(config, steps, Console(file=out, width=200))
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def test_refused_input_opens_no_session(
    write_config: Callable[..., Path], sessions: list[str], tmp_path: Path
) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\na,x,1\n")
    data = {"events": [str(tmp_path / "log.csv")], "columns": {"user_id": "customer"}}
    config = load_config(write_config(data=data))
    steps = plan(config, "prepare") + plan(config, "features")
    with pytest.raises(DataError, match="no column 'customer'"):
        run_steps(config, steps, Console(file=io.StringIO()))
    assert sessions == []


def test_every_model_has_its_steps(config: ExperimentConfig) -> None:
    titles = [step.title for stage in STAGES for step in plan(config, stage)]
    assert titles == [
        "prepare",
        "features",
        "train pop",
        "train markov",
        "train sasrec",
        "index sasrec",
        "evaluate",
        "publish",
    ]


def test_folds_are_trained_apart_and_the_last_is_indexed(
    write_config: Callable[..., Path],
) -> None:
    models = {"pop": {"kind": "pop"}, "deep": {"kind": "sasrec"}}
    config = load_config(write_config(split={"kind": "rolling", "folds": 2}, models=models))
    assert [step.subject for step in plan(config, "train")] == [
        "pop fold0",
        "deep fold0",
        "pop fold1",
        "deep fold1",
    ]
    assert [step.subject for step in plan(config, "index")] == ["deep fold1"]


def test_a_stage_that_does_not_exist(config: ExperimentConfig) -> None:
    with pytest.raises(ConfigError, match="no stage 'polish'; stages are prepare, features"):
        plan(config, "polish")


def test_what_is_up_to_date_is_skipped_and_says_so(
    config: ExperimentConfig, sessions: list[str]
) -> None:
    log: list[str] = []
    steps = [step(config, name, log) for name in ("prepared", "features", "train")]
    first = printed(config, steps)
    assert log == ["prepared", "features", "train"]
    assert first[0].startswith("[1/3] prepare 0.") and first[0].endswith("/out/tiny/prepared")
    assert first[-1].startswith("3 steps run, 0 up to date")

    second = printed(config, steps)
    assert log == ["prepared", "features", "train"]
    assert [" up to date " in line for line in second] == [True, True, True, False]
    assert second[-1].startswith("0 steps run, 3 up to date")


def test_one_ray_serves_all_steps_of_a_first_run(
    config: ExperimentConfig, sessions: list[str]
) -> None:
    printed(config, [step(config, name, []) for name in ("prepared", "features", "train")])
    assert sessions[0] == "open" and sessions[-1] == "close"
    assert "close" not in sessions[: len(sessions) // 2], "all are closed at the end"


def test_no_ray_is_started_where_all_is_done(config: ExperimentConfig, sessions: list[str]) -> None:
    steps = [step(config, name, []) for name in ("prepared", "features", "train")]
    printed(config, steps)
    sessions.clear()
    printed(config, steps)
    assert sessions == []


def test_a_step_that_fails_ends_the_run(config: ExperimentConfig, sessions: list[str]) -> None:
    log: list[str] = []

    def fail() -> Path:
        raise ConfigError("no")

    steps = [step(config, "prepared", log), Step("train", "x", fail), step(config, "index", log)]
    with pytest.raises(ConfigError):
        printed(config, steps)
    assert log == ["prepared"]


def test_two_runs_of_one_workspace_do_not_meet(
    config: ExperimentConfig, sessions: list[str]
) -> None:
    log: list[str] = []

    def run_again() -> Path:
        printed(config, [step(config, "features", log)])
        return config.workspace

    said = r"at work in .*out/tiny \(pid .*another `output` or `name`"
    with pytest.raises(RecsysError, match=said):
        printed(config, [Step("train", "x", run_again)])
    assert log == []
    printed(config, [step(config, "features", log)])
    assert log == ["features"]
    assert [path.name for path in config.workspace.iterdir()] == ["features"]


def test_planning_imports_nothing_heavy(write_config: Callable[..., Path]) -> None:
    code = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from pipelines.stages import STAGES, plan\n"
        "from recsys.config import load_config\n"
        f"config = load_config(Path({str(write_config())!r}))\n"
        "steps = [step for stage in STAGES for step in plan(config, stage)]\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert not loaded & {"ray", "mlflow", "torch", "polars", "pytorch_lightning", "faiss"}


def test_the_command_names_all_stages() -> None:
    commands = {
        command.callback.__name__ for command in cli.app.registered_commands if command.callback
    }
    assert set(STAGES) <= commands
    assert stages.STAGES[0] == "prepare"
