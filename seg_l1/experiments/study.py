"""The study of a search: its folder, its journal, and the arguments that describe it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_l1.config.identity import FREE, differences
from seg_l1.config.words import slug
from seg_l1.errors import RunError, UserError
from seg_l1.experiments.space import CONFIG_DIR, DEFAULTS, lines, overrides
from seg_l1.runs.files import make_folder, writing
from seg_l1.runs.trust import TRUST, trusted

JOURNAL = "study.journal"
"""Optuna's file with all trials. It is only ever appended to, so that machines may share it."""

OLD = "study.db"
"""SQLite, in its place in studies of earlier versions; it breaks on network file systems."""

if TYPE_CHECKING:
    from optuna import Study

    from seg_l1.data.split import SegmentationData
    from seg_l1.runs.files import Config


def study_words(folder: Path | None, typed: Mapping[str, str]) -> dict[str, str]:
    """Returns the arguments of a study: the typed ones, which must match the saved, or the saved.

    If all typed keys are ones that may change, such as dataset.root, they update the saved ones.
    """
    described = not overrides(typed).keys() <= {*FREE, CONFIG_DIR}
    fresh = folder is None or (described and not study_file(folder).exists())
    saved = {} if fresh or folder is None else _saved_words(folder)
    if fresh and folder and folder.exists() and (folder.is_file() or _holds_files(folder)):
        raise UserError(f"study: '{folder}' holds something else than a study; choose another one")
    kept = {key: saved[key] for key in saved if key == "trials" or not described}
    words = {**DEFAULTS, **kept, **typed}
    changes = differences(saved, words, where="study", free=(*FREE, CONFIG_DIR, "trials"))
    if saved and changes:
        raise UserError(f"study: this is not the search in {folder}", details=changes)
    return words


def study_file(folder: Path) -> Path:
    """Returns the file of the study in a folder, whether it is there or not."""
    return folder / (OLD if (folder / OLD).exists() else JOURNAL)


def _holds_files(folder: Path) -> bool:
    """Returns whether a folder holds more than what another process has just begun there."""
    return any(not path.name.startswith((".", JOURNAL)) for path in folder.iterdir())


def _saved_words(folder: Path) -> dict[str, str]:
    from optuna import load_study

    file = study_file(folder)
    try:
        if not file.is_file():
            raise KeyError
        with open_storage(folder) as storage:
            words = dict(load_study(study_name="search", storage=storage).user_attrs["words"])
    except (UserError, RunError):
        raise
    except Exception:  # optuna raises errors of all kinds over a damaged file
        raise UserError(
            f"study: '{folder}' holds no search (no readable {file.name} there). Give a folder of"
            " outputs/searches, or words for a new one."
        ) from None
    if calls_code(words) and not trusted():
        raise UserError(
            f"{file}: names a _target_ to be called. If you trust that file, set the"
            f" environment variable {TRUST}=1."
        )
    return words


def calls_code(words: Mapping[str, str]) -> bool:
    """Returns whether the arguments of a study name something to be called."""
    return any("_target_" in f"{key}={value}" for key, value in words.items())


def open_study(
    storage: Any, words: dict[str, str], config: Config, data: SegmentationData
) -> Study:
    """Opens or creates the study, and saves its arguments.

    Raises:
        UserError: if its trials were trained on other data than `data`.
    """
    from optuna import create_study
    from optuna.pruners import MedianPruner, NopPruner

    warmup = config["trainer"]["epochs"] // 4 + 1  # optuna counts steps from 0
    study = create_study(
        storage=storage,
        study_name="search",
        load_if_exists=True,
        directions=["maximize"] * len(words["objectives"].split(",")),
        pruner=NopPruner() if words["pruner"] == "none" else MedianPruner(n_warmup_steps=warmup),
    )
    about = study.user_attrs.get("data")
    if about and (difference := data.difference(about["fingerprint"], about["classes"])):
        raise UserError(f"study: {difference}, or begin another study")
    study.set_user_attr("words", words)
    study.set_user_attr("data", {"fingerprint": data.fingerprint, "classes": data.classes})
    return study


@contextmanager
def open_storage(folder: Path) -> Iterator[Any]:
    """Context manager: the journal of a study, created if it is missing; or its old database.

    Raises:
        UserError, RunError: if it cannot be written.
    """
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    from sqlalchemy import URL

    make_folder(folder)
    file = study_file(folder)
    if file.name == JOURNAL:
        lock = JournalFileOpenLock(str(file))
        with writing(file):
            _end_last_line(file, lock)
            journal = JournalFileBackend(str(file), lock_obj=lock)
        yield JournalStorage(journal)
        return
    storage = RDBStorage(URL.create("sqlite", database=str(file)).render_as_string())
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _end_last_line(file: Path, lock: Any) -> None:
    """Takes away a line of a journal that was begun on a full disk; another would continue it."""
    if not file.exists():
        return
    lock.acquire()
    try:
        with open(file, "rb+") as journal:
            if end := journal.read().rfind(b"\n") + 1:
                journal.truncate(end)
    finally:
        lock.release()


def default_folder(words: Mapping[str, str]) -> Path:
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{slug(lines(overrides(words)))}"
    return Path("outputs/searches") / f"{name}_{secrets.token_hex(2)}"


def load_optuna() -> None:
    try:
        import optuna
    except ImportError:
        raise UserError(
            "a search needs optuna: pip install optuna, or the extra [search] of this project"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
