"""The command ``obhut``: global options, one lazily imported sub-application a noun, and the end of every run.

``obhut --help`` imports none of the nouns. A noun is offered once its module exists.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)
from cyclopts.exceptions import ValidationError as ArgumentError

import obhut
from obhut.cli.context import Context, context, enter, parse_actor, parse_clock
from obhut.cli.exits import Exit, Interrupted, UsageError, status
from obhut.cli.output import Output
from obhut.foundation import language, redaction
from obhut.foundation.errors import ObhutError

# Noun, and the line that `obhut --help` shows without importing its module. The order is that of the tutorial.
NOUNS: dict[str, str] = {
    "init": "Write a commented settings file and create the state directory.",
    "datamap": "Say whose data is where: check, suggest and show the data map.",
    "controllers": "Keep the controllers (your customers) and their contracts.",
    "instructions": "Keep the documented instructions that permit what is done with personal data.",
    "erase": "Erase or anonymise people: plan, tombstone, execute, verify.",
    "erasures": "Look after the erasure list: verify, lift, resolve, recover.",
    "retention": "Anonymise people who have been inactive for too long: rules, notices, holds.",
    "audit": "Log every change of personal data: capture, search, hand out, verify.",
    "backup": "Back up continuously, keep the restorable window, let nothing grow too old.",
    "restore": "Restore through the filter and prove that erased people stay erased.",
    "clone": "Make masked copies for test and staging, checked for leaks before they open.",
    "runs": "Look at journalled runs and their steps.",
    "keystore": "Look after the master key of the key store.",
    "keys": "Look after the keys of people in audit logs: status, rotate, reconcile, renew.",
    "canary": "Plant synthetic people that prove the filter in every restore.",
    "promises": "Evaluate every promise: kept, broken or unproven.",
    "serve": "Run worker, WAL receiver, heartbeat and audit capture of this machine.",
    "control": "Run and look after the control database.",
    "demo": "Play the whole story on a sample vendor.",
}

GLOBAL = Group("Global options", sort_key=100)

app = App(
    name="obhut",
    help="Safe custody of personal data for the GDPR processor: erased people stay erased, also through a restore.",
    version=obhut.__version__,
    version_flags=["--version"],
    help_format="plaintext",
    default_parameter=Parameter(negative=""),
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    help_epilogue=(
        "Exit status: 0 done, 1 failed, 2 usage, 3 refused, 4 not instructed, 5 not proven, 6 partial (resume it). "
        "Every error has a code and a hint; docs/reference/errors.md explains each."
    ),
)

app.meta.suppress_keyboard_interrupt = False


def available() -> dict[str, str]:
    """Return the nouns whose modules exist, with the line of help."""
    here = Path(__file__).parent
    return {noun: line for noun, line in NOUNS.items() if (here / f"{noun}.py").is_file() or (here / noun / "__init__.py").is_file()}


for _noun, _line in available().items():
    app.command(f"obhut.cli.{_noun}:app", name=_noun, help=_line)


@app.meta.default
def start(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[Path | None, Parameter(group=GLOBAL, name="--config")] = None,
    as_json: Annotated[bool, Parameter(group=GLOBAL, name="--json", negative="", show_default=False)] = False,
    lang: Annotated[Literal["en", "de"] | None, Parameter(group=GLOBAL, name="--lang")] = None,
    actor: Annotated[str | None, Parameter(group=GLOBAL, name="--as")] = None,
    no_colour: Annotated[bool, Parameter(group=GLOBAL, name=["--no-colour", "--no-color"], negative="", show_default=False)] = False,
    quiet: Annotated[bool, Parameter(group=GLOBAL, name=["--quiet", "-q"], negative="", show_default=False)] = False,
    clock_offset: Annotated[str | None, Parameter(group=GLOBAL, name="--clock-offset", show=False)] = None,
) -> object:
    """Run a command in its context.

    Parameters
    ----------
    tokens
        The command with its own arguments.
    config
        Settings file; else the variable OBHUT_CONFIG, else ./obhut.toml.
    as_json
        Print exactly one JSON document on standard output, errors included.
    lang
        Language of the output; else that of the locale, else that of the settings file.
    actor
        Who acts, as ROLE:REF with an opaque reference; the system account's number by default.
    no_colour
        Print without colour.
    quiet
        Print results and errors only.
    clock_offset
        Live at another time, as an ISO 8601 duration: for drills and tests.
    """
    spoken = language.Language(lang) if lang else language.from_environment()
    if spoken:
        language.use(spoken)
    output = Output(as_json=as_json, quiet=quiet, colour=False if no_colour else None)
    enter(Context(config=config, output=output, language_chosen=spoken is not None))
    entered = context()
    entered.clock = parse_clock(clock_offset)
    if actor:
        entered.actor = parse_actor(actor)
    return app(tokens, exit_on_error=False, print_error=False, result_action="return_value")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; nothing but an :class:`ObhutError`'s own words is ever printed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    redaction.configure(json="--json" in given)
    _guard_hooks()
    # For errors that happen before the options are understood.
    enter(Context(output=Output(as_json="--json" in given)))
    try:
        outcome = app.meta(given, exit_on_error=False, print_error=False, result_action="return_value")
    except BrokenPipeError:
        # The reader has gone; a second write at interpreter exit would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILURE
    except KeyboardInterrupt:
        return _fail(Interrupted("interrupted", 'Nothing half done is shown as done; "obhut runs list" names what can be resumed.'))
    except SystemExit as leaving:
        outcome = leaving.code
    except CycloptsError as error:
        return _fail(_usage(error))
    except ObhutError as error:
        return _fail(error)
    except Exception as error:  # noqa: BLE001 - the last line of defence: no exception's text reaches the terminal
        return _fail(_internal(error))
    context().output.finish()
    return outcome if isinstance(outcome, int) and not isinstance(outcome, bool) else Exit.OK


def _fail(error: ObhutError) -> int:
    context().output.fail(error)
    return status(error)


def _internal(error: BaseException) -> ObhutError:
    """Return type and place of an unexpected exception: its words may quote a row."""
    return ObhutError(
        f"unexpected {type(error).__name__} at {redaction.place(error)}",
        "This is a fault in Obhut; report the line above, which holds no personal data.",
    )


def _usage(error: CycloptsError) -> UsageError:
    """Return the value-free error for a command line that cannot be parsed."""
    chain = list(error.command_chain or ())
    hint = f'See "{" ".join(["obhut", *chain])} --help".'
    argument = error.argument.name if error.argument is not None else None
    if isinstance(error, UnknownCommandError):
        fact = "unknown command"
    elif isinstance(error, UnknownOptionError):
        keyword = (error.token.keyword or error.token.value).split("=", 1)[0]
        fact = f"unknown option {keyword}" if keyword.startswith("-") else "unknown argument"
    elif isinstance(error, MissingArgumentError):
        fact = f"{argument or 'an argument'} is missing or lacks its value"
    elif isinstance(error, RepeatArgumentError):
        fact = f"{argument or 'an option'} is given more than once"
    elif isinstance(error, UnusedCliTokensError):
        fact = "too many arguments"
    elif isinstance(error, CoercionError | ArgumentError):
        fact = f"{argument or 'an argument'} has a value that cannot be used"
    else:
        fact = "the command line cannot be understood"
    return UsageError(": ".join([" ".join(chain), fact] if chain else [fact]), hint)


def _guard_hooks() -> None:
    """Keep the interpreter from printing tracebacks of threads and destructors: the last line of one quotes the exception."""

    def hook(_kind: type[BaseException], error: BaseException, _traceback: TracebackType | None) -> None:
        context().output.fail(_internal(error))

    def thread_hook(failure: threading.ExceptHookArgs) -> None:
        if failure.exc_value is not None:
            context().output.warn(_internal(failure.exc_value).fact)

    def unraisable_hook(failure: Any) -> None:
        if failure.exc_value is not None:
            context().output.warn(_internal(failure.exc_value).fact)

    sys.excepthook = hook
    threading.excepthook = thread_hook
    sys.unraisablehook = unraisable_hook


if __name__ == "__main__":
    sys.exit(main())
