"""``python -m mer_bench`` is ``mer-bench``."""

from mer_bench.cli import main

main()
