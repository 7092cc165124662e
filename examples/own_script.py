"""A script of your own: a sweep in a folder, with table and figure, in about ten lines.

    python examples/own_script.py results/mine

A progress bar shows how far it is, all devices share the work, and the folder is locked. Interrupt
it and give the command again: it continues. Give it once more: nothing is left to compute.
"""

import sys

from plantjax import jobs


def main(folder="results/own_script"):
    grid = jobs.Grid(
        tasks=["relu"],
        finders=["snip", "synflow"],
        densities=["ticket", "0.1", "0.5"],
        seeds=range(4),
        width=30,
        static={"epochs": 1, "samples": 1_000},
    )
    table = jobs.run(grid, folder)  # a DataFrame, also saved as results.csv
    jobs.show(table)
    jobs.figure(table, f"{folder}/figure.png")


if __name__ == "__main__":
    main(*sys.argv[1:2])
