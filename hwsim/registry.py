"""What is there to choose from: plug-ins by entry point, and the data files that ship with the package.

Our own device families, mappers and models are found through the same entry-point groups ("hwsim.devices",
"hwsim.mappers", "hwsim.models") that a third party's package would use. Nothing is imported before it is
asked for.
"""

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable

from hwsim.errors import PluginError, lookup


def plugins(group: str) -> dict[str, EntryPoint]:
    """The plug-ins of a group such as "hwsim.devices" by name, not yet imported."""
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise PluginError(f"{group}: two are called '{entry.name}': {_origin(other)}, {_origin(entry)}")
    return found


def load_plugin(group: str, name: str) -> object:
    """Import the plug-in called `name`; an unknown name is an UnknownNameError with the nearest one."""
    entry = lookup(group.rpartition(".")[2].removesuffix("s"), name, plugins(group))
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise PluginError(f"{group}: '{name}' from {_origin(entry)} does not load: {error}") from error


def data_files(package: str, folder: str = "", suffix: str = ".yaml") -> dict[str, Traversable]:
    """The data files shipped below `folder` of a package, by their name without the suffix."""
    found: dict[str, Traversable] = {}
    for file in _walk(files(package).joinpath(folder)):
        if not file.name.endswith(suffix):
            continue
        name = file.name.removesuffix(suffix)
        if name in found:
            raise PluginError(f"{package}: two files are called '{file.name}': {found[name]} and {file}")
        found[name] = file
    return found


def _walk(folder: Traversable) -> Iterator[Traversable]:
    """All files below a folder, sorted by name, none where the folder is missing."""
    if not folder.is_dir():
        return
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.is_dir():
            yield from _walk(item)
        else:
            yield item


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name if entry.dist else 'an unknown package'} ({entry.value})"
