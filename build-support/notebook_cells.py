"""Executes a notebook's cells, in the environment of the interpreter that runs this.

    python notebook_cells.py NOTEBOOK FOLDER

FOLDER is the kernel's working directory, and gets a copy of the notebook with all outputs.
"""

from __future__ import annotations

import re
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import nbformat  # pants: no-infer-dep
from nbclient import NotebookClient  # pants: no-infer-dep
from nbclient.exceptions import CellExecutionError, DeadKernelError  # pants: no-infer-dep
from nbformat.warnings import MissingIDFieldWarning  # pants: no-infer-dep

Cell = Any

# Lines of a cell's text that are shown: enough to see how it ended.
OF_ONE_THAT_RAN, OF_ONE_THAT_FAILED = 5, 40


def main() -> None:
    source, folder = map(Path, sys.argv[1:])
    # Older notebooks' cells have no ids.
    warnings.simplefilter("ignore", MissingIDFieldWarning)
    notebook = nbformat.read(source, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        # It would warn of connections without encryption, which do not leave this machine.
        extra_arguments=["--log-level=CRITICAL"],
    )
    try:
        with client.setup_kernel():
            execute(client, notebook.cells)
    except KeyboardInterrupt:
        sys.exit("interrupted")
    finally:
        nbformat.write(notebook, folder / source.name)


def execute(client: NotebookClient, cells: list[Cell]) -> None:
    """Cells are counted as Jupyter counts: `In [3]` is the third that has code."""
    code = [index for index, cell in enumerate(cells) if has_code(cell)]
    for number, index in enumerate(code, 1):
        cell = cells[index]
        print(f"[{number}/{len(code)}] {title(cell)}", end="  ", flush=True)
        started = time.monotonic()
        try:
            client.execute_cell(cell, index)
        except CellExecutionError as error:
            print("failed")
            show(cell, OF_ONE_THAT_FAILED)
            sys.exit(explained(number, cell, error))
        except DeadKernelError:
            print("failed", flush=True)
            sys.exit(f"cell {number} ended the kernel: out of memory, or a crash in a library")
        print(f"({time.monotonic() - started:.1f} s)", flush=True)
        show(cell, OF_ONE_THAT_RAN)


def has_code(cell: Cell) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


def title(cell: Cell) -> str:
    line = cell.source.strip().splitlines()[0]
    return line if len(line) <= 70 else f"{line[:69]}…"


def show(cell: Cell, most: int) -> None:
    """The last lines that a cell printed."""
    streams = (output for output in cell.outputs if output.output_type == "stream")
    lines = plain("".join(output.text for output in streams)).splitlines()
    for line in lines[-most:]:
        print(f"    | {line}", flush=True)


def explained(number: int, cell: Cell, error: CellExecutionError) -> str:
    """Which line it was, as far as IPython's traceback tells."""
    lines = cell.source.splitlines()
    found = re.search(r"Cell In ?\[\d+\], line (\d+)", plain(error.traceback))
    # Of what a magic such as %%time runs, the traceback has no lines of the cell.
    number_of_line = int(found[1]) if found and not lines[0].startswith("%%") else 0
    message = f"{error.ename}: {plain(error.evalue)}"
    if not 1 <= number_of_line <= len(lines):
        return f"cell {number} failed: {message}"
    line = lines[number_of_line - 1].strip()
    return f"cell {number}, line {number_of_line} failed:\n\n    {line}\n\n{message}"


def plain(text: str) -> str:
    """Without colours, and of lines that were written over, such as progress bars, the last state."""
    text = re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", text).replace("\r\n", "\n")
    return re.sub(r"(?m)^.*\r", "", text)


if __name__ == "__main__":
    main()
