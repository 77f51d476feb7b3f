"""A job's input: one string of bytes, the *item stream*, and where it comes from.

Every item's raw JSON is there, followed by a comma. Its pieces are copied, or referred to where they lie.
"""

from dataclasses import dataclass
from enum import Enum


class SourceKind(Enum):
    """What a job's items are, where they are not in its submission."""

    FILE_PATHS = "file_path_lister"  # the files' paths
    FILE_CONTENTS = "delimited_files"  # the JSON values in the files
    STREAM = "stream"  # what the submitter sends while the job runs


@dataclass(frozen=True, slots=True)
class Source:
    """Where a job's items come from after its submission was accepted."""

    kind: SourceKind
    paths: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A file or an object as it was when it was listed."""

    uri: str
    """`s3://bucket/key` or `file:///path`: plain text, nothing in it is escaped or decoded."""
    size: int
    """Bytes."""
    tag: str
    """Differs whenever the content does, as far as the store can tell: S3's etag; a file's size, mtime and inode."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A part of an item stream that is not copied, because it can be read again: an object's bytes, with a comma for
    every line feed.
    """

    source: StoredObject
    start: int
    """Where it begins in the object."""
    length: int
    """Bytes of the item stream. Where the object's last line has no line feed it is one more than there are bytes."""
    checksum: int
    """CRC-32 of these bytes of the item stream."""


Piece = bytes | Reference
"""A part of an item stream, ending where an item ends."""


@dataclass(frozen=True, slots=True)
class PlacedPiece:
    """A piece and where it begins in the item stream."""

    start: int
    piece: Piece

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.start + (self.piece.length if isinstance(self.piece, Reference) else len(self.piece))
