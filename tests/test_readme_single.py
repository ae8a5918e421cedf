"""The examples of the README and of docs/ in single precision, in which users find JAX."""

from test_readme import WITH_EXAMPLES, run_examples


@WITH_EXAMPLES
def test_examples_in_single_precision(page):
    run_examples(page, x64=False)
