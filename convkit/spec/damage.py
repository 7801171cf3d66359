"""What reading a document that may hold anything raises, besides errors of the system."""

from __future__ import annotations

import msgspec

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""`msgspec.json.decode`: no JSON or of another schema; no UTF-8; brackets in brackets beyond all measure."""
