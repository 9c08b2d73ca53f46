"""Pickle a model that costs nothing, so that everything around it is measured.

python3 trivial_model.py FILE
"""

import sys

import cloudpickle


def predict(live_features):
    feature = live_features.iloc[:, 5]
    return feature.rank(pct=True, method="first").to_frame("prediction")


def main() -> None:
    with open(sys.argv[1], "wb") as file:
        cloudpickle.dump(predict, file)


if __name__ == "__main__":
    main()
