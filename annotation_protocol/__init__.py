"""The annotation protocol: what each pixel may be called, when to skip, how to review.

`protocol.toml` is the one source; `protocol.md` is what an annotator reads. Importing this package
costs nothing but the standard library; the drawings and phantoms need numpy and Pillow and are
imported by name.
"""

from annotation_protocol.errors import ProtocolError, UserError
from annotation_protocol.protocol import (
    UNLABELLED,
    UNLABELLED_NAME,
    UNLABELLED_RGB,
    LabelClass,
    Protocol,
    SkipReason,
    ToneGroup,
    Verdict,
    load_protocol,
)

__all__ = [
    "UNLABELLED",
    "UNLABELLED_NAME",
    "UNLABELLED_RGB",
    "LabelClass",
    "Protocol",
    "ProtocolError",
    "SkipReason",
    "ToneGroup",
    "UserError",
    "Verdict",
    "load_protocol",
]
