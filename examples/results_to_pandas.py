"""A run's scores and training curve as pandas tables.

python examples/results_to_pandas.py runs/example/run
python examples/results_to_pandas.py RUN ANOTHER-RUN --csv scores.csv
"""

import argparse

import pandas as pd

import kore


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", help="run folders, or names under the runs folder")
    parser.add_argument("--csv", help="write the scores there too")
    options = parser.parse_args()
    runs = {name: kore.load_run(name) for name in options.runs}

    overview = pd.DataFrame(
        {"status": r.status, "method": r.method, "trainable": r.trainable, "lr": r.settings.get("train.lr")}
        for r in runs.values()
    ).set_axis(list(runs))
    print(overview.to_string(), end="\n\n")

    scores = pd.DataFrame([{"run": name, **row} for name, run in runs.items() for row in run.scores()])
    print(scores.dropna(axis="columns", how="all").to_string(index=False), end="\n\n")

    for name, run in runs.items():
        curve = pd.DataFrame(run.events("step"), columns=["step", "loss", "lr"]).set_index("step")
        print(f"{name}: loss over the training\n{curve['loss'].describe().to_string()}\n")
    if options.csv:
        scores.to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
