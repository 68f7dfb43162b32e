"""Many colorizers under the same conditions: rows, tables, curves."""
