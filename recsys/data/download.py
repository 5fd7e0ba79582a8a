"""Download: the raw files of a preset, from a folder of yours, the cache, or their public source.

Looked for in `RECSYS_DATA_DIR/<name>`, then in the cache directory (`RECSYS_CACHE_DIR`, or the
platform's), then fetched there with the published checksum. What a conversion makes of them lies in
the cache too, under a name that holds the hash of the raw files.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from recsys.data.catalogue import Preset, Source, find_preset
from recsys.data.conversions.tables import EVENTS, ITEMS, RawFiles
from recsys.errors import DataError, MissingExtraError
from recsys.manifest import file_hash, is_current, stable_hash, stage_directory

logger = logging.getLogger(__name__)

DATA_DIR = "RECSYS_DATA_DIR"
CACHE_DIR = "RECSYS_CACHE_DIR"


def get(name: str) -> Path:
    """Return the directory that holds a preset's data, ready to read; fetched and converted if needed.

    `DataError` says where to get the files by hand if there is no public address, it cannot be
    reached or the checksum is wrong.
    """
    preset = find_preset(name, "data set")
    raw = raw_files(preset)
    ready = converted(preset, raw)
    return ready.events[0].parent


def cache_directory() -> Path:
    """Return where downloads and conversions are kept: `RECSYS_CACHE_DIR` or the platform's place."""
    chosen = os.environ.get(CACHE_DIR)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "recsys"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "recsys"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recsys"


def raw_files(preset: Preset) -> RawFiles:
    """Return the raw files of a preset, downloaded if they are nowhere and have a public address."""
    if preset.package is not None:
        return RawFiles(())
    folders = _folders(preset)
    for folder in folders:
        found = files_in(preset, folder)
        if found is not None:
            return found
    if preset.sources:
        for source in preset.sources:
            fetch(source, folders[-1], preset)
        found = files_in(preset, folders[-1])
        if found is not None:
            return found
    raise DataError(_absent(preset, folders))


def files_in(preset: Preset, folder: Path) -> RawFiles | None:
    """Return the preset's files in a folder, sorted; None if no event file is there."""
    for pattern in preset.events:
        events = tuple(sorted(path for path in folder.glob(pattern) if path.is_file()))
        if events:
            return RawFiles(events, _first_match(preset.items, folder))
    return None


def _first_match(patterns: Sequence[str], folder: Path) -> tuple[Path, ...]:
    for pattern in patterns:
        if found := tuple(sorted(path for path in folder.glob(pattern) if path.is_file())):
            return found
    return ()


def _folders(preset: Preset) -> list[Path]:
    """Return the folders to look in; the last is the cache's, where downloads go."""
    own, name = os.environ.get(DATA_DIR), preset.folder or preset.name
    mine = [Path(own).expanduser() / name] if own else []
    return [*mine, cache_directory() / "raw" / name]


def _absent(preset: Preset, folders: Sequence[Path]) -> str:
    looked = " and ".join(str(folder) for folder in folders)
    put = folders[0]
    if len(folders) == 1:
        put_hint = f"(or set {DATA_DIR} to a directory that holds {put.name}/)"
    else:
        put_hint = f"({DATA_DIR}/{put.name})"
    return (
        f"data set {preset.name!r}: no {' or '.join(preset.events)} in {looked}.\n"
        f"  To get it: {preset.where}.\n"
        f"  Put the files into {put} {put_hint}, or name them in data.events."
    )


def fetch(source: Source, folder: Path, preset: Preset) -> None:
    """Download a public file into `folder`, checked, and unpack the wanted members of a zip.

    Nothing is left in `folder` if the address does not answer or the checksum is wrong. A source
    without a published checksum is taken as it comes and its sha256 is logged.
    """
    try:
        import pooch
    except ImportError as error:
        raise MissingExtraError("pooch", "data") from error
    folder.mkdir(parents=True, exist_ok=True)
    name = source.url.rsplit("/", 1)[-1]
    try:
        path = Path(pooch.retrieve(source.url, source.checksum, fname=name, path=folder))
    except (OSError, ValueError) as error:
        raise DataError(
            f"data set {preset.name!r}: {source.url} could not be fetched: {error}\n"
            f"  By hand: {preset.where}.\n  Put the files into {folder}."
        ) from error
    if source.checksum is None:
        logger.warning(
            "%s: no published checksum; the file's sha256 is %s", source.url, file_hash(path)
        )
    if source.members:
        _unpack(path, source.members, folder)


def _unpack(archive: Path, members: Sequence[str], folder: Path) -> None:
    """Write the named members, each whole or not at all, and nothing else that is in the archive."""
    try:
        with zipfile.ZipFile(archive) as content:
            for member in members:
                target = folder / Path(member).name
                aside = target.with_name(f".{target.name}.partial")
                with content.open(member) as packed, aside.open("wb") as plain:
                    shutil.copyfileobj(packed, plain, 1 << 20)
                aside.replace(target)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataError(
            f"{archive} is not the archive that was expected ({error}); delete it and try again"
        ) from error
    archive.unlink()


def converted(preset: Preset, raw: RawFiles) -> RawFiles:
    """Return the files to read: the raw ones, or what the preset's conversion makes of them, cached.

    Counts of what was left out are in the manifest of the conversion's directory and in the log.
    """
    if preset.convert is None:
        return raw
    key = stable_hash([preset.name, preset.version, _content(preset, raw)])
    directory = cache_directory() / "converted" / f"{preset.name}-{key[:12]}"
    if not is_current(directory, key):
        directory.parent.mkdir(parents=True, exist_ok=True)
        with stage_directory(directory, key) as (work, manifest):
            counts = preset.convert(raw, work)
            manifest["counts"] = counts
            manifest["raw"] = [path.name for path in raw.all()]
        for what, count in counts.items():
            logger.info("%s: %s: %d", preset.name, what, count)
    events, items = directory / EVENTS, directory / ITEMS
    return RawFiles(
        (events,) if events.is_file() else raw.events, (items,) if items.is_file() else raw.items
    )


def _content(preset: Preset, raw: RawFiles) -> list[str]:
    """Return what identifies the raw data: hashes of the files, or the package and its version."""
    if preset.package is None:
        return [file_hash(path) for path in raw.all()]
    from importlib.metadata import PackageNotFoundError, version

    try:
        return [preset.package, version(preset.package)]
    except PackageNotFoundError as error:
        raise MissingExtraError(preset.package, "data") from error
