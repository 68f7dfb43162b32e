"""The colorization Turing test (Zhang, Isola, Efros 2016): on paper, on a page, and its statistics."""
