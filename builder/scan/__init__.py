"""Read a training script without executing it: imports, parameters, framework."""

from builder.scan.facts import Import, Note, Positional, ScannedParameter, ScriptFacts, option_names
from builder.scan.script import scan_script, script_options

__all__ = [
    "Import",
    "Note",
    "Positional",
    "ScannedParameter",
    "ScriptFacts",
    "option_names",
    "scan_script",
    "script_options",
]
