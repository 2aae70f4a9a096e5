"""`edgecnn quantize`."""

from __future__ import annotations

from pathlib import Path

from edgecnn import options
from edgecnn.cli import _int8 as int8
from edgecnn.cli import _output
from edgecnn.cli._verb import Verb
from edgecnn.cli.convert import as_document, print_conversion

VERB = "edgecnn._verbs.quantize:quantize"


def command(verb: Verb, *, plot: options.DamagePlot = None, json: options.Json = False) -> int:
    """Add int8 artifacts to a bundle: with float's accuracy within a limit, or refused."""
    if plot is not None:
        int8.check_plot(plot)
    with _output.progress_bar("reading pictures") as progress:
        conversion = verb(progress=progress)
    if plot is not None and conversion.bundle is not None:
        int8.write_plot(conversion.bundle.manifest, plot)
    if json:
        _output.print_json(as_document(conversion))
    else:
        print_conversion(conversion, Path(verb["out"] or verb["bundle"]))
    return 1 if conversion.refused else 0
