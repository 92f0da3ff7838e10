"""The store in a folder of this machine: one SQLite file, and files by their content."""

from builder.models.local.database import FOLDER_VARIABLE
from builder.models.local.store import LocalStore, default_folder

__all__ = ["FOLDER_VARIABLE", "LocalStore", "default_folder"]
