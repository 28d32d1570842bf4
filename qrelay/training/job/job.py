"""What a job is to do: its job.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from qrelay.errors import BackendUnavailable, MalformedInput
from qrelay.files import write_atomic
from qrelay.parsing import json_document


@dataclass(frozen=True, slots=True)
class Job:
    """name: unique within `data_dir`. change_no: of the trigger, for people; the export takes what the ledger holds
    when it begins. ledger: path or URL without a password; empty: the settings'. unmeasured, unqualified: let labels
    train although their judge was not measured, or fell short; `sink.training` may allow it too."""

    name: str
    collection: str
    data_dir: Path
    change_no: int = 0
    rule: str = ""
    ledger: str = ""
    unmeasured: bool = False
    unqualified: bool = False

    @property
    def folder(self) -> Path:
        """Where everything of it lies."""
        return self.data_dir / "training" / self.name

    @property
    def file(self) -> Path:
        """Its job.json."""
        return self.folder / "job.json"

    def write(self) -> Path:
        """Writes job.json and returns its path. Raises BackendUnavailable."""
        document = {**asdict(self), "data_dir": str(self.data_dir)}
        try:
            write_atomic(self.file, json.dumps(document, indent=1))
        except OSError as error:
            raise BackendUnavailable(f"cannot write {self.file}: {error.strerror}") from error
        return self.file


def read_job(file: Path) -> Job:
    """The job that the file describes; fields that a launcher adds are left out.

    Raises:
        MalformedInput: it cannot be read, or is no job.
    """
    try:
        found = json_document(file.read_bytes())
        return Job(
            str(found["name"]), str(found["collection"]), Path(found["data_dir"]), int(found.get("change_no", 0)),
            str(found.get("rule", "")), str(found.get("ledger", "")), bool(found.get("unmeasured")),
            bool(found.get("unqualified")),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise MalformedInput(
            f"{file} is not a training job ({type(error).__name__}: {error}): a sink's launcher writes it, and"
            " `qrelay rounds`"
        ) from error
