"""Parses command lines of one script as the script does, without running it.

    python parse_flags.py train.py < COMMANDS     # or -m MODULE [COMMAND]

Reads a JSON list of lists of arguments. Prints JSON: the flags that the script has, and what is
wrong with each command, "" for nothing. The first argument of a command that has several is looked
up in the script's `COMMANDS`. Every command has a process of its own, forked once the script is
imported.
"""

import argparse
import contextlib
import io
import json
import os
import runpy
import sys
import traceback

from absl import app, flags

from configs import checks

SCRIPT = sys.argv[1:]
COMMANDS = json.load(sys.stdin)


class Parsed(Exception):
    """A command is right; its script need not go on."""


def forked(parse, arguments) -> str:
    """What `parse` writes to standard error and then ends with; "" where it returns."""
    reader, writer = os.pipe()
    if child := os.fork():
        os.close(writer)
        with open(reader) as file:
            said = file.read()
        os.waitpid(child, 0)
        return said
    said = io.StringIO()
    sys.argv[1:] = arguments  # where ml_collections looks for the keys that are overridden
    try:
        with contextlib.redirect_stderr(said):
            with contextlib.suppress(Parsed):
                parse(arguments)
        said = io.StringIO()  # warnings
    except SystemExit:
        pass
    except BaseException:
        traceback.print_exc(file=said)
    with open(writer, "w") as file:
        file.write(said.getvalue())
    os._exit(0)


def end(parse, names) -> None:
    """Reports on all commands, and ends the script."""
    faults = [forked(parse, arguments) for arguments in COMMANDS]
    print(json.dumps({"flags": sorted(names), "faults": faults}))
    sys.stdout.flush()
    os._exit(0)


def of_absl(main, argv=None, flags_parser=None):
    """In place of `app.run`."""
    script = vars(sys.modules[main.__module__])  # of the function that `launch.main` runs
    known = script.get("COMMANDS") or script.get("FROM", {}) and {*script["FROM"], "verify"}
    if len(SCRIPT) > 2:  # `-m MODULE COMMAND`: it was looked up already
        known = None

    def parse(arguments):
        rest = flags_parser([sys.argv[0], *arguments])[1:]
        if flags.FLAGS.config:
            # Parsing takes keys that no section has.
            checks.validate(flags.FLAGS.config, trains=SCRIPT[0] != "eval.py")
        if known and (not rest or rest[0] not in known):
            raise ValueError(f"{rest}: expected one of {', '.join(known)}")
        if rest and not known and not ("overlap" in flags.FLAGS and flags.FLAGS.overlap):
            raise ValueError(f"{rest}: expected flags alone")

    end(parse, flags.FLAGS)


def of_argparse(self, args=None, namespace=None, original=argparse.ArgumentParser.parse_known_args):
    """In place of `parse_known_args`; the first is the script's own parser."""
    argparse.ArgumentParser.parse_known_args = original
    parsers = [self, *(parser for action in self._actions for parser in (
        action.choices.values() if isinstance(action, argparse._SubParsersAction) else ()))]

    def parse(arguments):
        argparse.ArgumentParser.parse_known_args = once
        sys.modules["__main__"].main()  # once more, for a parser may depend on what is given

    def once(parser, args=None, namespace=None):
        argparse.ArgumentParser.parse_known_args = original
        known, further = parser.parse_known_args(args)
        if further and not getattr(known, "beam_runner", ""):
            parser.error(f"unknown: {further}")
        raise Parsed

    end(parse, {name.strip("-") for parser in parsers for name in parser._option_string_actions})


app.run, argparse.ArgumentParser.parse_known_args = of_absl, of_argparse
sys.path.insert(0, os.getcwd())
if SCRIPT[0] == "-m":
    sys.argv = SCRIPT[1:]
    runpy.run_module(SCRIPT[1], run_name="__main__", alter_sys=True)
else:
    sys.argv = SCRIPT
    runpy.run_path(SCRIPT[0], run_name="__main__")
