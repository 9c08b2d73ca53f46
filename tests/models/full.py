"""One small model of every library that the full images have beside those of `tabular.py`."""

import io
import os
import tempfile

import numpy as np
from training import FEATURES, main, model

# TensorFlow tells of this machine's processor.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


@model("h5py")
def h5py(train, target):
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as data:
        data.create_dataset("weights", data=train.corrwith(target), compression="gzip")

    def score(features):
        with h5py.File(io.BytesIO(file.getvalue())) as data:
            return features @ data["weights"][:]

    return score


@model("jax")
def jax(train, target):
    import jax
    import jax.numpy as jnp

    @jax.jit
    def scores(weights, rows):
        return jnp.tanh(rows @ weights)

    @jax.jit
    def loss(weights):
        return ((scores(weights, train.to_numpy(np.float32)) - target.to_numpy()) ** 2).mean()

    weights = jnp.zeros(len(FEATURES))
    for _ in range(20):
        weights -= 0.01 * jax.grad(loss)(weights)
    return lambda features: scores(weights, features.to_numpy(np.float32))


@model("keras")
def keras(train, target):
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.Input((len(FEATURES),)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("adam", "mse")
    model.fit(train.to_numpy(np.float32), target, epochs=2, verbose=0)
    return lambda features: model.predict(features.to_numpy(np.float32), verbose=0)


@model("onnx")
def onnx(train, target):
    from onnx import TensorProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    weights = train.corrwith(target).to_numpy(np.float32)[:, None]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["rows", "weights"], ["product"]),
            helper.make_node("Sigmoid", ["product"], ["scores"]),
        ],
        "model",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, len(FEATURES)])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph)

    def score(features):
        (scores,) = ReferenceEvaluator(model).run(None, {"rows": features.to_numpy(np.float32)})
        return scores

    return score


@model("pytorch_lightning")
def pytorch_lightning(train, target):
    import pytorch_lightning as pl
    import torch

    class Linear(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(len(FEATURES), 1)

        def forward(self, rows):
            return self.layer(rows)[:, 0]

        def training_step(self, batch, batch_index):
            rows, targets = batch
            return torch.nn.functional.mse_loss(self(rows), targets)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    pl.seed_everything(0)
    data = torch.utils.data.TensorDataset(tensor(train), tensor(target))
    quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)
    model = Linear()
    trainer.fit(model, torch.utils.data.DataLoader(data, 50))
    return no_gradients(model.eval())


@model("skorch")
def skorch(train, target):
    import torch
    from skorch import NeuralNetRegressor

    torch.manual_seed(0)
    network = NeuralNetRegressor(
        torch.nn.Linear, module__in_features=len(FEATURES), module__out_features=1, verbose=0
    )
    network.fit(train.to_numpy(np.float32), target.to_numpy(np.float32)[:, None])
    return lambda features: network.predict(features.to_numpy(np.float32))


@model("tabpfn")
def tabpfn(train, target):
    """Its weights would have to be downloaded: these are random."""
    try:
        from tabpfn import TabPFNRegressor
    except ImportError:
        return tabpfn_0(train, target)
    import torch
    from tabpfn.architectures import ARCHITECTURES
    from tabpfn.model_loading import get_loss_criterion

    torch.manual_seed(0)
    size = dict(emsize=12, nhead=2, nlayers=1, max_num_classes=0, num_buckets=20)
    config, _ = ARCHITECTURES["base"].parse_config(size)
    network = ARCHITECTURES["base"].get_architecture(
        config, n_out=20, cache_trainset_representation=True
    )
    buckets = type(get_loss_criterion(config))(torch.linspace(-4, 4, 21))
    network.criterion = buckets
    with tempfile.NamedTemporaryFile(suffix=".ckpt") as file:
        torch.save({"state_dict": randomized(network).state_dict(), "config": size}, file.name)
        regressor = TabPFNRegressor(model_path=file.name, n_estimators=2, device="cpu")
        regressor.fit(train[:50], target[:50])
    return regressor.predict


def tabpfn_0(train, target):
    """Before version 2 its estimators were of classes only."""
    import torch
    from tabpfn.encoders import Linear
    from tabpfn.transformer import TransformerModel

    torch.manual_seed(0)
    size = dict(n_out=1, ninp=12, nhead=2, nhid=12, nlayers=1)
    network = TransformerModel(Linear(len(FEATURES), 12), y_encoder=Linear(1, 12), **size)
    randomized(network).eval()

    def in_context(rows):
        every = torch.cat([tensor(train), rows])[:, None]
        known = torch.nn.functional.pad(tensor(target), (0, len(rows)))[:, None]
        return network((every, known), single_eval_pos=len(train))

    return no_gradients(in_context)


@model("tensorflow")
def tensorflow(train, target):
    import tensorflow as tf

    rows = tf.constant(train, tf.float32)
    weights = tf.linalg.lstsq(rows, tf.constant(target, tf.float32)[:, None])
    return lambda features: tf.sigmoid(tf.constant(features, tf.float32) @ weights)


@model("torch")
def torch(train, target):
    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(len(FEATURES), 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)
            )

        def forward(self, rows):
            return self.layers(rows)[:, 0]

    torch.manual_seed(0)
    network = Network()
    optimizer = torch.optim.Adam(network.parameters())
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(network(tensor(train)), tensor(target)).backward()
        optimizer.step()
    return no_gradients(network.eval())


@model("torchmetrics")
def torchmetrics(train, target):
    import torch
    from torchmetrics import MetricCollection
    from torchmetrics.regression import MeanSquaredError, PearsonCorrCoef

    metrics = MetricCollection([MeanSquaredError(), PearsonCorrCoef()])
    weights = tensor(train.corrwith(target))

    def score(features):
        scores = tensor(features) @ weights
        found = metrics(scores, tensor(features)[:, 0])
        return torch.tanh(scores / found["MeanSquaredError"] * found["PearsonCorrCoef"])

    return score


@model("treelite")
def treelite(train, target):
    import lightgbm
    import treelite

    try:
        from treelite.frontend import from_lightgbm
    except ImportError:  # Before version 4.
        from_lightgbm = treelite.Model.from_lightgbm
    trees = lightgbm.LGBMRegressor(n_estimators=20, verbose=-1).fit(train, target)
    model = from_lightgbm(trees.booster_).serialize_bytes()

    def score(features):
        rows = features.to_numpy(np.float32)
        return treelite.gtil.predict(treelite.Model.deserialize_bytes(model), rows)

    return score


@model("ydf")
def ydf(train, target):
    import ydf

    ydf.verbose(0)
    learner = ydf.GradientBoostedTreesLearner("target", task=ydf.Task.REGRESSION, num_trees=10)
    return learner.train(train.assign(target=target)).predict


def tensor(data):
    import torch

    return torch.from_numpy(data.to_numpy(np.float32))


def randomized(module):
    import torch

    for weights in module.parameters():
        torch.nn.init.normal_(weights)
    return module


def no_gradients(module):
    import torch

    def score(features):
        with torch.no_grad():
            return module(tensor(features)).numpy()

    return score


if __name__ == "__main__":
    main()
