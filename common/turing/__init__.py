"""The colorization Turing test (Zhang, Isola, Efros 2016): on paper, in a browser, and its statistics."""
