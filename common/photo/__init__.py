"""From a photograph to the same photograph in color."""
