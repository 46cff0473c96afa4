"""Read a label table: rows with decoded masks, or Arrow columns.

The address that users import; the work is in `jobs.table.read`.
"""

from jobs.table.read import Instance, LabelRow, LabelTable, open_labels, read_columns, read_labels

__all__ = ["Instance", "LabelRow", "LabelTable", "open_labels", "read_columns", "read_labels"]
