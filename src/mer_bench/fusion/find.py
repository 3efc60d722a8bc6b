"""The class of a method by its name: built in, ``module:Class`` from the working folder, or of an installed package."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import math
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Collection
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from mer_bench.errors import Misuse, unknown
from mer_bench.fusion import METHODS
from mer_bench.fusion.base import FusionModule
from mer_bench.methods import MethodFacts, registered
from mer_bench.schema import check_name

Provenance = Literal["baseline", "reimplemented", "reconstruction", "own"]


def find_method(name: str, kind: str = "method") -> type[FusionModule]:
    """The class of a method.

    Built-in names come first, so that nothing can take their place.

    Args:
        name: A built-in name, ``module:Class``, or the name of an entry point.
        kind: What messages call it, such as "method in suite my_suite.toml".

    Raises:
        Misuse: there is no such method, its module fails while it is imported, or it is no :class:`FusionModule`.
    """
    if name in METHODS:
        return METHODS[name]
    if ":" in name:
        check_name(name, kind)
        return _checked(_from_folder(name, kind), f"{kind} {name!r}")
    points = registered()
    chosen = {point.value: point for point in points if point.name == name}
    if not chosen:
        module, _, rest = name.partition(".")
        own = f"{module}:{rest or 'Class'}" if module in _modules(Path.cwd()) else "module:Class for one of your own"
        raise unknown(kind, name, [*METHODS, *dict.fromkeys(point.name for point in points), own])
    if len(chosen) > 1:
        packages = " and ".join(f"{_package(point)} ({value})" for value, point in sorted(chosen.items()))
        raise Misuse(f"{kind} {name!r} is registered by {packages}: give one of these classes instead")
    (point,) = chosen.values()
    what = f"{kind} {name!r}, {point.value} of {_package(point)},"
    return _checked(_imported(point.load, what), what)


def class_facts(name: str, kind: str = "method") -> MethodFacts:
    """The facts of a method that its class tells without being constructed; see :func:`find_method`."""
    method = find_method(name, kind)
    options = options_of(method)
    by_class: Collection[str] = ()
    if method.options_for.__func__ is not FusionModule.options_for.__func__:  # type: ignore[attr-defined]
        try:
            by_class = method.options_for(("neutral", "happy"))
        except Exception:  # one that is not built in may know its own classes alone
            by_class = options
    several = f"{method.least} or more" if method.least > 1 else "any"
    return MethodFacts(
        title=method.title,
        track=method.context,
        version=method.version,
        modalities="one" if method.most == 1 else ", ".join([several, *sorted(method.needs)]),
        kind=provenance(name),
        paper=method.paper.replace("arXiv ", "https://arxiv.org/abs/"),
        idea=(sys.modules[method.__module__].__doc__ or method.__doc__ or name).strip().splitlines()[0].rstrip("."),
        parameters=0,
        needs=sorted(method.needs),
        least=method.least,
        most=None if method.most == math.inf else int(method.most),
        options=json.loads(json.dumps(options)),
        by_class=sorted(by_class),
        file=inspect.getfile(method),
    )


def options_of(method: type[FusionModule]) -> dict[str, Any]:
    """Option -> default of a method's constructor."""
    parameters = inspect.signature(method).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def provenance(name: str) -> Provenance:
    """Who wrote a method: what a built-in one declares; "own" for any other, also if it extends a built-in one."""
    return METHODS[name].provenance if name in METHODS else "own"


def search_in(folder: Path) -> None:
    """Let modules be imported from ``folder`` first, as ``python -m`` does with the working folder."""
    if not {str(folder), ""} & set(sys.path):
        sys.path.insert(0, str(folder))


def _from_folder(name: str, kind: str) -> Any:
    """What ``module:Class`` names."""
    module_name, _, class_name = name.partition(":")
    if not (re.fullmatch(r"\w+(\.\w+)*", module_name) and class_name.isidentifier()):
        raise Misuse(f"{kind} {name!r} must be module:Class, such as my_module:MyFusion or package.module:MyFusion")
    search_in(Path.cwd())
    importlib.invalidate_caches()  # the module may have been written a moment ago
    for depth, part in enumerate(parts := module_name.split("."), 1):
        # Each package is looked for before it is imported: a module that is absent is told from one that lacks another.
        above, known = ".".join(parts[: depth - 1]), ".".join(parts[:depth])
        if known not in sys.modules and _absent(known, f"{kind} {name!r}"):
            folders = [Path(path) for path in sys.modules[above].__path__] if above else [Path.cwd()]
            valid = sorted({module for folder in folders for module in _modules(folder)})
            raise unknown(f"module of {kind} {name!r}, looked for in {above or Path.cwd()},", part, valid)
    module: ModuleType = _imported(lambda: importlib.import_module(module_name), f"{kind} {name!r}")
    if class_name not in vars(module):
        classes = [each for each, value in vars(module).items() if isinstance(value, type)]
        own = [each for each in classes if issubclass(vars(module)[each], FusionModule) and each != "FusionModule"]
        raise unknown(f"class of {kind} {name!r}, looked for in {module.__file__ or module_name},", class_name, own)
    return vars(module)[class_name]


def _absent(module: str, what: str) -> bool:
    """Whether there is no such module; the package that holds it is imported to see."""
    return bool(_imported(lambda: importlib.util.find_spec(module) is None, what))


def _modules(folder: Path) -> list[str]:
    """Names of the modules and packages in a folder."""
    found = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
    return found + [path.parent.name for path in folder.glob("*/__init__.py")]


def _imported(load: Callable[[], Any], what: str) -> Any:
    """What ``load`` gives; raises Misuse in one sentence for whatever the code of the module raises."""
    try:
        return load()
    except (Exception, SystemExit) as error:
        raise Misuse(f"{what} cannot be imported: {said(error)}") from error


def said(error: BaseException) -> str:
    """An error in one line: its type, its message and, in brackets, the last line of the user's code that led to it."""
    library = [sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")]
    frames = list(traceback.extract_tb(error.__traceback__))
    frames = [each for each in frames if not each.filename.startswith(("<", str(Path(__file__).parents[1])))]
    frames = [each for each in frames if "importlib" not in each.filename]
    own = [(each.filename, each.lineno) for each in frames if not each.filename.startswith(tuple(library))]
    where = own or [(each.filename, each.lineno) for each in frames]
    message = str(error)
    if isinstance(error, SyntaxError) and error.filename:
        where, message = [(error.filename, error.lineno)], error.msg
    file = f" ({where[-1][0]}, line {where[-1][1]})" if where else ""
    return f"{type(error).__name__}: {' '.join(message.split())}{file}"


def _checked(found: Any, what: str) -> type[FusionModule]:
    if not (isinstance(found, type) and issubclass(found, FusionModule)):
        raise Misuse(f"{what} is no FusionModule: it must be a class that extends mer_bench.fusion.FusionModule")
    built_in = [name for name, each in METHODS.items() if each is found]
    if built_in:
        raise Misuse(f"{what} is the built-in method {built_in[0]!r}: give that name")
    if found.forward is FusionModule.forward:
        raise Misuse(f"{what} has no forward(batch), which returns the logits [utterance, num_classes]")
    return found


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "a package"
