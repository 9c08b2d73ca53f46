"""One small model of every library that the tabular images have."""

import io

import numpy as np
import pandas as pd
from training import FEATURES, main, model


@model("catboost")
def catboost(train, target):
    from catboost import CatBoostRegressor

    # It would leave its training log in the current folder.
    quiet = dict(allow_writing_files=False, silent=True)
    return CatBoostRegressor(iterations=20, **quiet).fit(train, target).predict


@model("formulaic")
def formulaic(train, target):
    from formulaic import Formula

    formula = Formula("feature_0 * feature_1 + poly(feature_2, 2)")
    matrix = formula.get_model_matrix(train)
    weights = np.linalg.lstsq(matrix.to_numpy(), target, rcond=None)[0]
    return lambda features: matrix.model_spec.get_model_matrix(features) @ weights


@model("joblib")
def joblib(train, target):
    import joblib

    weights = [train[feature].cov(target) for feature in FEATURES]
    file = io.BytesIO()
    joblib.dump(weights, file, compress=3)

    def score(features):
        weights = joblib.load(io.BytesIO(file.getvalue()))
        columns = zip(features, weights)
        work = (joblib.delayed(np.multiply)(features[name], weight) for name, weight in columns)
        return sum(joblib.Parallel(n_jobs=2)(work))

    return score


@model("lightgbm")
def lightgbm(train, target):
    from lightgbm import LGBMRegressor

    return LGBMRegressor(n_estimators=20, verbose=-1).fit(train, target).predict


@model("matplotlib")
def matplotlib(train, target):
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().hist(target)
    reds = colormaps["Reds"]

    def score(features):
        figure.savefig(io.BytesIO(), format="png")
        return reds(features["feature_0"] / 8 - features["feature_1"] / 16 + 0.5)[:, 1]

    return score


@model("mlxtend")
def mlxtend(train, target):
    from mlxtend.regressor import StackingRegressor
    from sklearn.linear_model import Ridge
    from sklearn.tree import DecisionTreeRegressor

    models = [Ridge(), DecisionTreeRegressor(max_depth=4, random_state=0)]
    stack = StackingRegressor(models, meta_regressor=Ridge())
    stack.fit(train.to_numpy(), target.to_numpy())
    return lambda features: stack.predict(features.to_numpy())


@model("networkx")
def networkx(train, target):
    import networkx as nx

    graph = nx.from_pandas_adjacency(train.assign(target=target).corr().abs())
    weights = pd.Series(nx.pagerank(graph))

    def score(features):
        near = nx.single_source_dijkstra_path_length(graph, "target", weight=None)
        return features @ (weights / pd.Series(near)).loc[FEATURES]

    return score


@model("numba")
def numba(train, target):
    from numba import njit, prange

    weights = np.array([train[feature].cov(target) for feature in FEATURES])

    @njit(parallel=True)
    def weighed(rows):
        scores = np.zeros(len(rows))
        for row in prange(len(rows)):
            for column in range(len(weights)):
                scores[row] += rows[row, column] * weights[column]
        return scores

    return lambda features: weighed(features.to_numpy())


@model("numerai_tools")
def numerai_tools(train, target):
    from numerai_tools.scoring import gaussian, neutralize, tie_kept_rank

    weights = train.corrwith(target)

    def score(features):
        scores = (features @ weights).to_frame("prediction")
        return neutralize(gaussian(tie_kept_rank(scores)), features[["feature_0"]].astype(float))

    return score


@model("numerapi")
def numerapi(train, target):
    from numerapi import NumerAPI

    api = NumerAPI(verbosity="error")
    weights = train.corrwith(target)
    return lambda features: (features @ weights) * len(api.tournament_id * [api])


@model("numerblox")
def numerblox(train, target):
    from numerblox.ensemble import NumeraiEnsemble
    from sklearn.linear_model import Ridge

    ensemble = NumeraiEnsemble()
    first, second = Ridge().fit(train, target), Ridge(alpha=1000).fit(train, target)

    def score(features):
        both = np.column_stack([first.predict(features), second.predict(features)])
        return ensemble.fit_transform(both, era_series=pd.Series("X", features.index))

    return score


@model("pandas")
def pandas(train, target):
    weights = train.corrwith(target)
    return lambda features: features.mul(weights).sum(axis=1)


@model("patsy")
def patsy(train, target):
    from patsy import dmatrix

    formula = "feature_0 * feature_1 + bs(feature_2, df=4)"
    weights = np.linalg.lstsq(dmatrix(formula, train), target, rcond=None)[0]
    return lambda features: dmatrix(formula, features) @ weights


@model("PIL")
def pillow(train, target):
    from PIL import Image

    weights = Image.fromarray(train.corrwith(target).to_numpy(np.float32)[None])

    def score(features):
        rows = Image.fromarray(features.to_numpy(np.uint8)).convert("F")
        return np.asarray(rows) @ np.asarray(weights)[0]

    return score


@model("plotly")
def plotly(train, target):
    import plotly.graph_objects as go

    figure = go.Figure(go.Bar(x=FEATURES, y=train.corrwith(target).to_list()))

    def score(features):
        assert figure.to_json()
        return features @ figure.data[0].y

    return score


@model("polars")
def polars(train, target):
    import polars as pl

    weights = train.corrwith(target)
    score = pl.sum_horizontal(pl.col(name) * weight for name, weight in weights.items())
    return lambda features: pl.from_pandas(features).lazy().select(score).collect().to_numpy()


@model("pyarrow")
def pyarrow(train, target):
    import pyarrow as pa
    import pyarrow.compute as pc

    weights = pa.table({name: [weight] for name, weight in train.corrwith(target).items()})

    def score(features):
        rows = pa.Table.from_pandas(features, preserve_index=False)
        return sum(
            pc.multiply(pc.cast(rows[name], pa.float64()), weights[name][0]).to_numpy()
            for name in FEATURES
        )

    return score


@model("scipy")
def scipy(train, target):
    from scipy.optimize import minimize
    from scipy.spatial import KDTree

    def loss(weights):
        return ((train @ weights - target) ** 2).mean()

    weights = minimize(loss, np.zeros(len(FEATURES)), method="L-BFGS-B").x
    tree = KDTree(train * weights)

    def score(features):
        distances, rows = tree.query(features * weights, k=5)
        return np.average(target.to_numpy()[rows], axis=1, weights=1 / (1 + distances))

    return score


@model("sklearn")
def sklearn_forest(train, target):
    from sklearn.ensemble import (
        HistGradientBoostingRegressor,
        RandomForestRegressor,
        VotingRegressor,
    )

    trees = RandomForestRegressor(20, max_depth=5, n_jobs=2, random_state=0)
    boosted = HistGradientBoostingRegressor(max_iter=20)
    return VotingRegressor([("trees", trees), ("boosted", boosted)]).fit(train, target).predict


@model("sklearn")
def sklearn_logistic(train, target):
    from sklearn.linear_model import LogisticRegression

    # L-BFGS is scipy's.
    high = LogisticRegression(solver="lbfgs").fit(train, target > target.median())
    return lambda features: high.predict_proba(features)[:, 1]


@model("sklearn")
def sklearn_mlp(train, target):
    from sklearn.neural_network import MLPRegressor

    return (
        MLPRegressor((8,), solver="lbfgs", max_iter=500, random_state=0).fit(train, target).predict
    )


@model("sklearn")
def sklearn_pipeline(train, target):
    from sklearn.compose import ColumnTransformer
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = ColumnTransformer(
        [("categories", OneHotEncoder(), FEATURES[:2]), ("numbers", StandardScaler(), FEATURES[2:])]
    )
    return make_pipeline(columns, PCA(15, random_state=0), Ridge()).fit(train, target).predict


@model("statsmodels")
def statsmodels(train, target):
    import statsmodels.api as sm
    import statsmodels.formula.api as smf

    linear = sm.GLM(target, sm.add_constant(train)).fit()
    by_formula = smf.ols("target ~ feature_0 * feature_1", train.assign(target=target)).fit()

    def score(features):
        return linear.predict(sm.add_constant(features)) + by_formula.predict(features)

    return score


@model("sympy")
def sympy(train, target):
    from sympy import lambdify, symbols

    a, b = symbols("a b")
    formula = (train["feature_0"].cov(target) * a + train["feature_1"].cov(target) * b) ** 3
    function = lambdify((a, b), formula.expand() + formula.diff(a))
    return lambda features: function(
        *features[["feature_0", "feature_1"]].astype(float).T.to_numpy()
    )


@model("xgboost")
def xgboost(train, target):
    from xgboost import XGBRegressor

    return XGBRegressor(n_estimators=20).fit(train, target).predict


if __name__ == "__main__":
    main()
