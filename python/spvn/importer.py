"""From "module:attribute" to an ASGI app, with a sentence for everything that can be wrong.

Rules: an error in the text that the user gave is an AppError, one sentence that names what
was found instead. An error raised by the user's own code is an AppImportError that carries
its traceback, without our frames. Nothing here is imported by the app's name alone: the
search for what else might have been meant only lists files and attributes. What only an error
needs (difflib, pathlib) is imported where it is used: a process that serves does without.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import threading
import traceback
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from spvn._types import ASGIApp
from spvn.errors import AppError, AppImportError

if TYPE_CHECKING:
    from pathlib import Path

_EXAMPLE = "an ASGI app is a callable such as `async def app(scope, receive, send)`"


def load_app(app: ASGIApp | str, *, factory: bool = False, warn: Callable[[str], None] = lambda _: None) -> ASGIApp:
    """The app named by "module:attribute.path", or the one given, made by its factory if it is one.

    `warn` gets a sentence when a factory was found without having been asked for. Raises AppError.
    """
    found: Any = import_attribute(app) if isinstance(app, str) else app
    name = app if isinstance(app, str) else _name(app)
    if not callable(found):
        raise AppError(f"{name} is {_a(type(found).__name__)}, which cannot be called; {_EXAMPLE}.{_candidates(app)}")
    if factory or _is_factory(found):
        made = _call_factory(name, found, asked=factory)
        if not callable(made):
            if not factory:
                raise AppError(
                    f"{name} is a function without parameters that returned {_a(type(made).__name__)}; {_EXAMPLE}"
                )
            raise AppError(f"{name}() returned {_a(type(made).__name__)}, which cannot be called; {_EXAMPLE}")
        if not factory:
            warn("ASGI app factory detected. Using it, but please consider setting the --factory flag explicitly.")
        found = made
    result: ASGIApp = found
    return result


def import_attribute(text: str) -> Any:
    """What "module:attribute.path" names. Raises AppError."""
    module_name, colon, path = text.partition(":")
    if module_name.endswith(".py") or "/" in module_name:
        raise AppError(_about_file(text, module_name, path))
    if not module_name:
        raise AppError(f'"{text}" names no module; the form is MODULE:ATTRIBUTE, such as main:app')
    module = _import(module_name) if colon or _exists(module_name) else None
    if not path:
        looks = _looks_like_apps(module) if module is not None else []
        hint = f"; did you mean {module_name}:{looks[0]}?" if looks else ", such as main:app"
        raise AppError(f'"{text}" names no attribute; the form is MODULE:ATTRIBUTE{hint}')
    assert module is not None
    value: Any = module
    walked = module_name
    for name in path.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            raise AppError(_no_attribute(module, value, walked, name)) from None
        except Exception as exc:  # a property or a lazy module attribute of the user's
            raise _user_error(f"{walked}.{name} raised {type(exc).__name__}", exc) from exc
        walked += (":" if walked == module_name else ".") + name
    return value


def interface_of(app: ASGIApp) -> str:
    """What kind of callable this is: asgi3, asgi2 or wsgi. By its parameters; asgi3 when in doubt.

    wsgi is what is not async and needs exactly two arguments, unless they are named as ASGI's are; and Flask.
    """
    call = app if inspect.isclass(app) else getattr(app, "__call__", None)  # noqa: B004
    is_async = inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(call) or hasattr(call, "__await__")
    if is_async:
        return "asgi3"
    if hasattr(app, "wsgi_app"):
        return "wsgi"  # Flask, whose __call__ may have any parameters
    required = _required_parameters(app)
    if required is None:
        return "asgi3"
    if len(required) == 1:
        return "asgi2"
    names = [name.strip("_") for name in required[:2]]
    if names == ["environ", "start_response"]:
        return "wsgi"
    return "wsgi" if len(required) == 2 and not {"scope", "receive", "send"} & set(names) else "asgi3"


_importing = threading.local()


def importing() -> str:
    """The name of the module that this thread imports to find an app; "" if it imports none."""
    name: str = getattr(_importing, "name", "")
    return name


def _import(module_name: str) -> ModuleType:
    before, _importing.name = importing(), module_name
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        # Only a module on the way to the one that was asked for is the user's spelling;
        # any other is missing inside the user's code.
        if exc.name is None or not (module_name == exc.name or module_name.startswith(exc.name + ".")):
            raise _user_error(f"{module_name} cannot be imported: it needs the module {exc.name!r}", exc) from exc
        raise AppError(_no_module(module_name, exc.name)) from None
    except AppError:
        raise  # of run()
    except SystemExit as exc:
        raise AppError(f"{module_name} ended the process while it was imported (sys.exit({exc.code!r}))") from None
    except Exception as exc:
        raise _user_error(f"{module_name} cannot be imported: {type(exc).__name__}", exc) from exc
    finally:
        _importing.name = before


def _exists(module_name: str) -> bool:
    import importlib.util

    try:
        return importlib.util.find_spec(module_name) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _call_factory(name: str, factory: Callable[..., Any], *, asked: bool) -> Any:
    required = _required_parameters(factory)
    if asked and required:
        raise AppError(
            f"--factory: {name} needs arguments ({', '.join(required)}); a factory is called without any. "
            "If it is the app itself, leave --factory out"
        )
    try:
        return factory()
    except Exception as exc:
        raise _user_error(f"the factory {name} raised {type(exc).__name__}", exc) from exc


def _is_factory(app: Any) -> bool:
    if not (inspect.isfunction(app) or inspect.ismethod(app)) or inspect.iscoroutinefunction(app):
        return False
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return False
    # With *args it may well be an app behind a decorator.
    return all(p.default is not p.empty or p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in parameters)


def _required_parameters(app: Any) -> list[str] | None:
    """Names of the positional parameters without a default; None if unknown or if it takes any number."""
    try:
        parameters = list(inspect.signature(app).parameters.values())
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return [
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]


def _looks_like_app(value: Any) -> bool:
    if inspect.isclass(value) or inspect.ismodule(value) or not callable(value):
        return False
    required = _required_parameters(value)
    if required is not None and [name.strip("_") for name in required] == ["environ", "start_response"]:
        return True
    if inspect.isfunction(value):
        return required is not None and len(required) == 3 and inspect.iscoroutinefunction(value)
    return inspect.iscoroutinefunction(getattr(value, "__call__", None))  # noqa: B004


def _looks_like_apps(module: ModuleType) -> list[str]:
    """Names of the module's attributes that look like apps, the likeliest first."""
    usual = ("app", "application", "api", "asgi", "main")
    names = [name for name, value in vars(module).items() if not name.startswith("_") and _looks_like_app(value)]
    return sorted(names, key=lambda name: (usual.index(name) if name in usual else len(usual), name))


def _candidates(app: ASGIApp | str) -> str:
    if not isinstance(app, str):
        return ""
    module = sys.modules.get(app.partition(":")[0])
    names = _looks_like_apps(module) if module is not None else []
    return f" Looks like an app there: {', '.join(names)}." if names else ""


def _no_attribute(module: ModuleType, owner: Any, walked: str, name: str) -> str:
    import difflib

    where = f"module {module.__name__!r} ({_file_of(module)})" if owner is module else walked
    text = f"{where} has no attribute {name!r}."
    looks = _looks_like_apps(module) if owner is module else []
    public = [found for found in dir(owner) if not found.startswith("_")]
    close = difflib.get_close_matches(name, looks + public, n=1)
    if close:
        text += f" Did you mean {close[0]!r}?"
    others = [found for found in looks if found not in close]
    if others:
        text += f" Looks like an app there: {', '.join(others[:5])}."
    elif not close:
        own = [found for found in public if not inspect.ismodule(inspect.getattr_static(owner, found, None))]
        text += f" It has: {', '.join(own[:8])}." if own else " It is empty."
    if getattr(module, "__spec__", None) is not None and module.__spec__.has_location is False:  # type: ignore[union-attr]
        text += " It is a directory without __init__.py: name the file in it."
    return text


def _no_module(module_name: str, missing: str) -> str:
    import difflib
    from pathlib import Path

    text = f"there is no module {module_name!r}"
    if missing != module_name:
        text += f" (nor {missing!r})"
    here = Path(sys.path[0] or ".").resolve()
    text += f" in {here} or where Python looks for packages."
    elsewhere = _elsewhere(here, missing)
    if elsewhere:
        return text + f" There is {elsewhere}: try --app-dir {elsewhere.parent}"
    parent = here
    head, _, leaf = missing.rpartition(".")
    if head:  # the package is there, the module in it is not
        package = sys.modules.get(head)
        paths = list(getattr(package, "__path__", []))
        parent = Path(paths[0]) if paths else here
    names = _modules_in(parent)
    close = difflib.get_close_matches(leaf, names, n=1)
    if close:
        return text + f" Did you mean {head + '.' if head else ''}{close[0]}?"
    if names:
        text += f" Modules in {parent}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}."
    return text


def _modules_in(folder: Path) -> list[str]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    return [
        entry.stem
        for entry in entries
        if entry.stem.isidentifier()
        and (entry.suffix == ".py" or (entry / "__init__.py").is_file())
        and not entry.name.startswith("_")
    ]


def _elsewhere(here: Path, missing: str) -> Path | None:
    """A module of this name one level below, as in src/main.py; the path is relative to `here`."""
    if "." in missing:
        return None
    try:
        for folder in sorted(entry for entry in here.iterdir() if entry.is_dir() and entry.name.isidentifier()):
            for found in (folder / f"{missing}.py", folder / missing / "__init__.py"):
                if found.is_file():
                    return (found if found.stem == missing else found.parent).relative_to(here)
    except OSError:
        pass
    return None


def _about_file(text: str, module_name: str, path: str) -> str:
    from pathlib import Path

    file = Path(module_name if module_name.endswith(".py") else module_name + ".py")
    attribute = path or "app"
    advice = f"spvn {file.stem}:{attribute}"
    if str(file.parent) != ".":
        advice += f" --app-dir {file.parent}"
    return f'"{text}" is a file; name the module instead: {advice}'


def _user_error(message: str, exc: BaseException) -> AppImportError:
    """The user's own traceback: what came after the last frame of ours and of importlib's bootstrap."""
    tb = exc.__traceback__
    frames: list[TracebackType] = []
    while tb is not None:
        frames.append(tb)
        tb = tb.tb_next
    ours = os.path.dirname(__file__) + os.sep
    first = 0
    for index, frame in enumerate(frames):
        name = frame.tb_frame.f_code.co_filename
        if name.startswith((ours, "<frozen importlib")) or name == importlib.__file__:
            first = index + 1
        else:
            break
    kept = frames[first] if first < len(frames) else None
    report = "".join(traceback.format_exception(type(exc), exc, kept))
    return AppImportError(message, report.rstrip())


def _file_of(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or "built in"


def _name(app: Any) -> str:
    return getattr(app, "__qualname__", None) or repr(app)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"
