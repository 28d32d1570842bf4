"""One configuration an installation: where settings come from, what `up` records, and what a command says of both."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml

from qrelay.config import Role, ServiceSettings
from qrelay.errors import ConfigError
from qrelay.judging.settings import JudgeSettings
from qrelay.labels.settings import SinkSettings
from qrelay.settings import find, load_settings
from qrelay.settings.effective import leaves, renewed
from qrelay.settings.record import changes, difference, recorded_environ, write_record
from qrelay.settings.secrets import masked
from qrelay.settings.sections import settings_classes
from qrelay.settings.sources import Source, default_data_dir
from qrelay.training.settings import TrainerSettings

CLASSES = {"all": ServiceSettings, "judge": JudgeSettings, "sink": SinkSettings, "trainer": TrainerSettings}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a user who has no file and no installation yet."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def up(data_dir: Path | None = None, file: Path | None = None, **environ: str) -> None:
    """What `qrelay up` does with settings, but for starting anything."""
    effective = renewed(find(file, data_dir, environ))
    effective.check(CLASSES)
    write_record(effective, CLASSES)


def sink(file: Path | None = None, **environ: str) -> SinkSettings:
    return find(file, None, environ).settings(SinkSettings, "sink")


def note(file: Path | None = None, **environ: str) -> str:
    return difference(find(file, None, environ), SinkSettings, "sink") or ""


# --- which data folder ------------------------------------------------------------------------------------------


def test_the_data_folder_is_the_variables_else_the_files_else_here(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("QRELAY_DATA_DIR", "QRELAY_ALL__DATA_DIR", "QRELAY_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    assert default_data_dir() == Path(".qrelay")
    named = tmp_path / "conf.yaml"
    named.write_text("all: {data_dir: state}")
    assert default_data_dir(named) == tmp_path / "state"
    (here / "qrelay.yaml").write_text("all: {data_dir: own}")
    assert default_data_dir() == here / "own"
    monkeypatch.setenv("QRELAY_ALL__DATA_DIR", "/setting")
    assert default_data_dir() == Path("/setting")
    monkeypatch.setenv("QRELAY_DATA_DIR", "/variable")
    assert default_data_dir(named) == Path("/variable")
    assert load_settings(SinkSettings, "sink").ledger_url == "/variable/ledger.sqlite"
    assert load_settings(SinkSettings, "sink", data_dir=Path("/asked")).ledger_url == "/asked/ledger.sqlite"


def test_caches_ledgers_and_registries_lie_in_the_decided_folder(here: Path) -> None:
    environ = {"QRELAY_DATA_DIR": "/srv/state"}
    effective = find(None, None, environ)
    assert effective.settings(JudgeSettings, "judge").cache_path == "/srv/state/judge-cache.sqlite"
    assert effective.settings(SinkSettings, "sink").ledger_url == "/srv/state/ledger.sqlite"
    assert effective.settings(ServiceSettings, "all").registry_folder == Path("/srv/state/registry")


def test_a_service_may_have_a_data_folder_of_its_own_unless_another_one_is_asked_for(here: Path) -> None:
    (here / "qrelay.yaml").write_text("judge: {data_dir: judges}")
    assert find(None, None, {}).settings(JudgeSettings, "judge").data_dir == here / "judges"
    assert find(None, Path("other"), {}).settings(JudgeSettings, "judge").data_dir == Path("other")


# --- sources in order -------------------------------------------------------------------------------------------


def test_defaults_tuned_record_file_and_environment_each_win_over_the_former(here: Path, tmp_path: Path) -> None:
    state = here / ".qrelay"
    state.mkdir()
    (state / "tuned.yaml").write_text(
        "measured: {speed: 3}\n"
        "settings: {sink: {max_negatives: 1, judge_rank: 1, negative_rank: 1, guard_ratio: 0.1}}\n"
    )
    assert sink().max_negatives == 1
    (here / "qrelay.yaml").write_text("sink: {judge_rank: 2, negative_rank: 2, guard_ratio: 0.2}")
    up()
    named = tmp_path / "named.yaml"
    named.write_text("sink: {negative_rank: 3, guard_ratio: 0.3}")
    found = sink(named, QRELAY_SINK__GUARD_RATIO="0.4")
    assert (found.max_negatives, found.judge_rank, found.negative_rank, found.guard_ratio) == (1, 2, 3, 0.4)
    effective = find(named, None, {"QRELAY_SINK__GUARD_RATIO": "0.4"})
    origins = [
        effective.origin("sink", (name,))
        for name in ("siblings", "max_negatives", "judge_rank", "negative_rank", "guard_ratio")
    ]
    assert origins == [
        "default",
        ".qrelay/tuned.yaml",
        ".qrelay/settings.yaml (from qrelay.yaml)",
        str(named),
        "QRELAY_SINK__GUARD_RATIO",
    ]


def test_a_value_that_is_the_default_is_recorded_where_it_was_set_for_it_must_win_over_tuned(here: Path) -> None:
    (here / ".qrelay").mkdir()
    (here / ".qrelay" / "tuned.yaml").write_text("settings: {sink: {max_negatives: 3}}")
    (here / "qrelay.yaml").write_text(f"sink: {{max_negatives: {SinkSettings().max_negatives}}}")
    up()
    (here / "qrelay.yaml").unlink()
    assert sink().max_negatives == SinkSettings().max_negatives


def test_a_file_that_is_merely_found_counts_without_a_record_and_not_beside_one(here: Path) -> None:
    (here / "qrelay.yaml").write_text("sink: {max_negatives: 4}")
    assert sink().max_negatives == 4
    up()
    (here / "qrelay.yaml").write_text("sink: {max_negatives: 5, judge_rank: 7}")
    assert (sink().max_negatives, sink().judge_rank) == (4, SinkSettings().judge_rank)


def test_a_named_file_cannot_drop_what_the_record_sets_by_leaving_it_out(here: Path, tmp_path: Path) -> None:
    up(QRELAY_SINK__QUALIFICATION="/srv/report.json", QRELAY_JUDGE__BUDGET__TOKENS_PER_DAY="10")
    other = tmp_path / "other.yaml"
    other.write_text("sink: {max_negatives: 2}\njudge: {model: other}")
    assert (sink(other).qualification, sink(other).max_negatives) == ("/srv/report.json", 2)
    judge = find(other, None, {}).settings(JudgeSettings, "judge")
    assert (judge.model, judge.budget.tokens_per_day) == ("other", 10)


def test_a_files_mapping_by_free_names_is_the_whole_mapping_and_variables_change_it(
    here: Path, tmp_path: Path
) -> None:
    (here / "qrelay.yaml").write_text("judge: {judges: {a: {model: x}, b: {model: y}}}")
    up()
    other = tmp_path / "other.yaml"
    other.write_text("judge: {judges: {c: {model: z}}}")
    found = find(other, None, {"QRELAY_JUDGE__JUDGES__C__SHOTS": "0"}).settings(JudgeSettings, "judge")
    assert list(found.judges) == ["c"]
    assert (found.judges["c"].model, found.judges["c"].shots) == ("z", 0)


@pytest.mark.parametrize("before", ["all", "sink"])
def test_a_person_whom_the_file_no_longer_names_has_no_role(here: Path, before: str) -> None:
    access = "{grants: {ana: [operator], bob: [trainer]}, oidc: {roles: {admins: trainer, staff: reader}}}"
    (here / "qrelay.yaml").write_text(f"{before}: {{access: {access}}}")
    up()
    (here / "qrelay.yaml").write_text(
        f"all: {{access: {access}}}\nsink: {{access: {{grants: {{bob: [trainer]}}, oidc: {{roles: {{}}}}}}}}"
    )
    up()
    for found in (find(), find(here / "qrelay.yaml")):
        sinks = found.settings(SinkSettings, "sink").access
        assert (sinks.grants, sinks.oidc.roles) == ({"bob": (Role.TRAINER,)}, {})
        assert set(found.settings(JudgeSettings, "judge").access.grants) == {"ana", "bob"}


# --- the record -------------------------------------------------------------------------------------------------


def test_the_record_brings_back_every_setting_that_up_was_given(here: Path, tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "qrelay.yaml").write_text(
        "all: {worker: {max_items: 5}, nats: {credentials: me.creds}}\n"
        "judge: {backend: fake, worker: {max_items: 7}, calibration: 'maps.json#best', judges: {a: {shots: 0}}}\n"
        "sink: {relevant_grades: {0-1: 1, 0-3: 2, 1-4: 3, stars: 3}, ledger: 'sqlite:///own.sqlite'}\n"
        "trainer: {bi_encoder: {experiment: mine.yaml}, gate: {bi_encoder: {guard: [{set: sets/a}]}}}\n"
    )
    environ = {
        "QRELAY_ALL__WORKER__MAX_ITEMS": "9",
        "QRELAY_JUDGE__FAKE__FAILURE_RATE": "0.5",
        "QRELAY_SINK__QUALIFICATION": "report.json",
        "QRELAY_ALL__WORKER__RETRY_DELAYS_S": "[1, 2]",
    }
    given = find(conf / "qrelay.yaml", None, environ)
    up(None, conf / "qrelay.yaml", **environ)
    recorded = find(None, None, {})
    assert recorded.record is not None
    for section, each in CLASSES.items():
        assert leaves(recorded.settings(each, section)) == leaves(given.settings(each, section)), section
    assert recorded.origin("judge", ("worker", "max_items")).endswith("(from QRELAY_ALL__WORKER__MAX_ITEMS)")


def test_relative_paths_are_beside_their_file_and_those_of_variables_in_the_current_folder(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "q.yaml").write_text(
        "judge: {model: 'path:m.gguf', calibration: 'maps.json#a', cache: ':none:'}\n"
        "all: {insecure: true}\nsink: {ledger: 'postgresql://me@host/db'}\n"
        "trainer: {bi_encoder: {experiment: kl_margin}, cross_encoder: {experiment: own.yaml}}\n"
    )
    up(None, conf / "q.yaml", QRELAY_SINK__QUALIFICATION="report.json")
    monkeypatch.chdir(tmp_path)
    found = find(None, here / ".qrelay", {})
    judge = found.settings(JudgeSettings, "judge")
    assert (judge.model, judge.calibration, judge.cache) == (f"path:{conf}/m.gguf", f"{conf}/maps.json#a", ":none:")
    ours = found.settings(SinkSettings, "sink")
    assert (ours.ledger, ours.qualification) == ("postgresql://me@host/db", f"{here}/report.json")
    trainer = found.settings(TrainerSettings, "trainer")
    assert (trainer.bi_encoder.experiment, trainer.cross_encoder.experiment) == ("kl_margin", f"{conf}/own.yaml")


def test_only_its_owner_may_read_the_record(here: Path) -> None:
    up(QRELAY_SINK__LEDGER="postgresql://me:secret@host/db", QRELAY_ALL__INSECURE="true")
    assert stat.S_IMODE((here / ".qrelay" / "settings.yaml").stat().st_mode) == 0o600
    up(QRELAY_SINK__MAX_NEGATIVES="3")
    assert stat.S_IMODE((here / ".qrelay" / "settings.yaml").stat().st_mode) == 0o600


def test_up_without_a_file_goes_on_with_the_record_and_with_a_file_takes_the_file_alone(here: Path) -> None:
    (here / "qrelay.yaml").write_text("sink: {max_negatives: 4, judge_rank: 2}")
    up()
    (here / "qrelay.yaml").unlink()
    (said,) = changes(find(None, None, {}), CLASSES)
    assert "as recorded in .qrelay/settings.yaml" in said
    up()
    assert (sink().max_negatives, sink().judge_rank) == (4, 2)
    (here / "qrelay.yaml").write_text("sink: {max_negatives: 5}")
    assert changes(find(None, None, {}), CLASSES) == [
        "changed: sink: max_negatives was 4, is now 5 (qrelay.yaml)",
        f"changed: sink: judge_rank was 2, is now {SinkSettings().judge_rank} (default)",
    ]
    up()
    assert (sink().max_negatives, sink().judge_rank) == (5, SinkSettings().judge_rank)
    assert changes(find(None, None, {}), CLASSES) == []


def test_a_service_of_up_reads_the_record_and_no_variable_or_file_beside(here: Path, tmp_path: Path) -> None:
    environ = {"QRELAY_SINK__MAX_NEGATIVES": "4", "QRELAY_CONFIG": "/gone.yaml", "PATH": "/bin", "QRELAY_FAULTS": "x"}
    up(QRELAY_SINK__MAX_NEGATIVES="4")
    theirs = recorded_environ(environ, here / ".qrelay")
    assert "QRELAY_SINK__MAX_NEGATIVES" not in theirs
    assert (theirs["PATH"], theirs["QRELAY_FAULTS"]) == ("/bin", "x")
    (here / "qrelay.yaml").write_text("a: [not yaml")  # somebody edits it while services run and are started again
    found = find(None, None, theirs)
    assert found.settings(SinkSettings, "sink").max_negatives == 4
    assert found.data_dir == here / ".qrelay"
    assert difference(found, SinkSettings, "sink") is None


# --- what a command says ----------------------------------------------------------------------------------------


def test_a_found_file_that_differs_from_the_record_is_told_with_both_values_and_what_to_do(here: Path) -> None:
    (here / "qrelay.yaml").write_text("sink: {max_negatives: 4, judge_rank: 2}")
    up()
    assert note() == ""
    (here / "qrelay.yaml").write_text("sink: {max_negatives: 5}")
    told = note()
    assert "\n" not in told
    for words in (
        "qrelay.yaml differs from .qrelay/settings.yaml",
        "sink.max_negatives is 5 there, 4 in force",
        "sink.judge_rank is 1 there, 2 in force",
        "`qrelay down` and `qrelay up` take the file's",
    ):
        assert words in told


def test_what_a_variable_of_up_set_is_no_difference_of_the_file(here: Path) -> None:
    (here / "qrelay.yaml").write_text("sink: {max_negatives: 4}")
    up(QRELAY_SINK__MAX_NEGATIVES="9")
    assert sink().max_negatives == 9
    assert note() == ""


def test_a_named_file_or_variable_that_differs_is_told_and_wins(here: Path, tmp_path: Path) -> None:
    up(QRELAY_SINK__MAX_NEGATIVES="4")
    assert sink(QRELAY_SINK__MAX_NEGATIVES="5").max_negatives == 5
    assert "sink.max_negatives is 5 here (QRELAY_SINK__MAX_NEGATIVES), 4 there" in note(
        QRELAY_SINK__MAX_NEGATIVES="5"
    )
    named = tmp_path / "named.yaml"
    named.write_text("sink: {max_negatives: 6}")
    assert f"sink.max_negatives is 6 here ({named}), 4 there" in note(named)
    assert note(QRELAY_SINK__MAX_NEGATIVES="4") == ""


def test_a_found_file_that_does_not_hold_stops_no_command_of_an_installation(here: Path) -> None:
    up(QRELAY_SINK__MAX_NEGATIVES="4")
    (here / "qrelay.yaml").write_text("sink: {max_negativs: 5}")
    assert sink().max_negatives == 4
    assert "does not hold and is not in force" in note()
    assert "did you mean max_negatives?" in note()


def test_the_difference_is_said_once_on_standard_error(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    up(here / "state", QRELAY_SINK__MAX_NEGATIVES="4")
    monkeypatch.setenv("QRELAY_SINK__MAX_NEGATIVES", "5")
    for _ in range(2):
        load_settings(SinkSettings, "sink", data_dir=here / "state")
    told = capsys.readouterr()
    assert (told.out, told.err.count("max_negatives is 5")) == ("", 1)


# --- checks and secrets -----------------------------------------------------------------------------------------


def test_every_problem_of_every_service_is_found_before_anything_starts_each_once(here: Path) -> None:
    (here / "qrelay.yaml").write_text(
        "jugde: {}\nall: {worker: {max_item: 3}}\nsink: {max_negatives: 0}\ntrainer: {dev_shar: 1}\n"
    )
    with pytest.raises(ConfigError) as caught:
        find(None, None, {"QRELAY_JUDGE__BACKEND": "fak"}).check(settings_classes())
    text = str(caught.value)
    assert "5 problem(s)" in text
    for words in (
        "unknown sections jugde (did you mean judge?)",
        "all.worker.max_item: there is no such setting: did you mean worker.max_items? (from qrelay.yaml)",
        "sink.max_negatives: ",
        "value 0 from qrelay.yaml; or set QRELAY_SINK__MAX_NEGATIVES",
        "trainer.dev_shar: there is no such setting: did you mean dev_share?",
        "(value 'fak' from QRELAY_JUDGE__BACKEND)",
    ):
        assert words in text


def test_a_variable_of_no_section_is_a_problem_and_other_variables_are_not(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"QRELAY_JUGDE__MODEL: unknown sections JUGDE \(did you mean judge"):
        sink(QRELAY_JUGDE__MODEL="x")
    assert sink(QRELAY_MODELS_DIR="/m", QRELAY_JOB="j", OTHER__THING="x") == SinkSettings()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("postgresql://me:se@cr:et@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host/db?password=x&a=b", "postgresql://me@host/db?password=***&a=b"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("nats://token@a:4222", "nats://***@a:4222"),
        ("nats://a:4222,nats://b:4222", "nats://a:4222,nats://b:4222"),
        ({"api_key": "x", "max_tokens": 3}, {"api_key": "***", "max_tokens": 3}),
    ],
)
def test_passwords_are_not_shown(value: object, shown: object) -> None:
    assert masked(value) == shown


def test_no_message_shows_a_password(here: Path) -> None:
    hosts = {
        "QRELAY_SINK__LEDGER": "postgresql://me:secret@host/db",
        "QRELAY_JUDGE__CACHE": "postgresql://me:secret@host/a",
    }
    up(**hosts, QRELAY_ALL__INSECURE="true")
    effective = find(None, None, {"QRELAY_JUDGE__CACHE": "postgresql://me:hidden@host/b"})
    told = difference(effective, JudgeSettings, "judge") or ""
    assert "postgresql://me:***@host/b" in told
    assert "secret" not in told and "hidden" not in told
    assert "secret" in yaml.safe_load((here / ".qrelay" / "settings.yaml").read_text())["settings"]["sink"]["ledger"]


def test_a_mapping_comes_from_where_its_entries_were_written() -> None:
    variable = "QRELAY_ALL__ACCESS__GRANTS"
    source = Source("settings.yaml", {"all": {"access": {"grants": {"ana": ["reader"]}}}}, Path(),
                    names={"all.access.grants.ana": variable})  # fmt: skip
    assert source.origin("sink", ("access", "grants")) == variable
