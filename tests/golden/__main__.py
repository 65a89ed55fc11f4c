"""Show how the golden losses differ from the stored ones, and store the new ones with `--regenerate`."""

from __future__ import annotations

import argparse

from tests.golden import ARMS, HERE, difference, measure, store, stored


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("arms", nargs="*", help="arms to look at; all by default")
    parser.add_argument("--regenerate", action="store_true", help="store the new values")
    parser.add_argument("--show", action="store_true", help="only show the difference (the default)")
    options = parser.parse_args()
    for arm in options.arms or ARMS:
        new = measure(arm)
        print(f"{arm:32} {difference(new, stored(arm))}", flush=True)
        if options.regenerate and not options.show:
            store(arm, new)
    if options.regenerate and not options.show and not options.arms:
        for file in HERE.glob("*.json"):
            if file.stem not in ARMS:
                print(f"{file.stem:32} no longer an arm: deleted")
                file.unlink()


if __name__ == "__main__":
    main()
