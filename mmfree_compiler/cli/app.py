"""The table of commands, and how their errors are reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mmfree_compiler import __version__, debug
from mmfree_compiler.cli.bench import bench
from mmfree_compiler.cli.compile import compile_checkpoint
from mmfree_compiler.cli.disasm import disasm
from mmfree_compiler.cli.doctor import doctor
from mmfree_compiler.cli.explain import explain
from mmfree_compiler.cli.import_bin import import_bin
from mmfree_compiler.cli.inspect import inspect
from mmfree_compiler.cli.naming import in_options
from mmfree_compiler.cli.output import print_error
from mmfree_compiler.cli.run import run
from mmfree_compiler.cli.sign import sign
from mmfree_compiler.cli.train import train
from mmfree_compiler.cli.tune import tune
from mmfree_compiler.cli.verify import verify
from mmfree_compiler.errors import MmfreeError, ToolchainError
from mmfree_compiler.interrupts import exit_code

COMMANDS: dict[str, Callable[..., None]] = {
    "compile": compile_checkpoint,
    "import-bin": import_bin,
    "run": run,
    "inspect": inspect,
    "explain": explain,
    "disasm": disasm,
    "verify": verify,
    "sign": sign,
    "train": train,
    "bench": bench,
    "tune": tune,
    "doctor": doctor,
}
FAILED = 1


class Commands(TyperGroup):
    """The group of all commands. An MmfreeError is one red line in their words; exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(exit_code(interrupt)) from None
        except MmfreeError as error:
            raise _failure(error, self.commands.get(ctx.invoked_subcommand)) from None
        except ModuleNotFoundError as error:
            missing = str(error.name).partition(".")[0]
            if missing == "mmfree_compiler":
                raise
            hint = "pip install 'mmfree-compiler[all]'"
            raise _failure(ToolchainError(missing, "is not installed", hint)) from None


def _failure(error: MmfreeError, command: Any = None) -> Exception:
    if debug.tracebacks():
        return error
    print_error(in_options(error, command) if command else str(error))
    return typer.Exit(FAILED)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    wanted: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version),
    ] = False,
) -> None:
    """Compile MatMul-free language models to ternary kernels, and run them."""


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
