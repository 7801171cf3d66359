"""convkit converts a trained model into something a server can run, and proves what it did.

The functions are those of the command line. Nothing is imported before it is asked for.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # typing's own would have to be imported
if TYPE_CHECKING:
    from convkit.api import (
        build,
        check,
        compare,
        compare_models,
        convert,
        convert_fleet,
        doctor,
        inspect,
        preflight,
        read_reports,
        remeasure,
        serve,
    )
    from convkit.checking import CheckReport
    from convkit.errors import (
        CheckError,
        ConvkitError,
        InputError,
        MetadataError,
        MissingError,
        StepError,
        TrustError,
        UsageError,
    )
    from convkit.hosting import Serving
    from convkit.pipeline.cache import Cache
    from convkit.pipeline.events import Event, Observer
    from convkit.preflighting import Preflight
    from convkit.remeasuring import Remeasured
    from convkit.report.checkup import Checkup
    from convkit.report.document import Report
    from convkit.report.inspection import Inspection

__all__ = [
    "Cache",
    "CheckError",
    "CheckReport",
    "Checkup",
    "ConvkitError",
    "Event",
    "InputError",
    "Inspection",
    "MetadataError",
    "MissingError",
    "Observer",
    "Preflight",
    "Remeasured",
    "Report",
    "Serving",
    "StepError",
    "TrustError",
    "UsageError",
    "__version__",
    "build",
    "check",
    "compare",
    "compare_models",
    "convert",
    "convert_fleet",
    "doctor",
    "inspect",
    "preflight",
    "read_reports",
    "remeasure",
    "serve",
]

_HOMES = {
    "Cache": "convkit.pipeline.cache",
    "CheckReport": "convkit.checking",
    "Checkup": "convkit.report.checkup",
    "Event": "convkit.pipeline.events",
    "Inspection": "convkit.report.inspection",
    "Observer": "convkit.pipeline.events",
    "Preflight": "convkit.preflighting",
    "Remeasured": "convkit.remeasuring",
    "Report": "convkit.report.document",
    "Serving": "convkit.hosting",
    "build": "convkit.api",
    "check": "convkit.api",
    "compare": "convkit.api",
    "compare_models": "convkit.api",
    "convert": "convkit.api",
    "convert_fleet": "convkit.api",
    "doctor": "convkit.api",
    "inspect": "convkit.api",
    "preflight": "convkit.api",
    "read_reports": "convkit.api",
    "remeasure": "convkit.api",
    "serve": "convkit.api",
}
"""Where each public name is defined; the errors are in `convkit.errors`.

No module beside this file bears one of these names: importing it would put the module in the function's place.
"""


if not TYPE_CHECKING:  # for a type checker, what is not imported above is not there

    def __getattr__(name: str) -> object:
        if name.startswith("_") or name not in __all__:
            raise AttributeError(f"module 'convkit' has no attribute '{name}'")
        import importlib

        found = getattr(importlib.import_module(_HOMES.get(name, "convkit.errors")), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
