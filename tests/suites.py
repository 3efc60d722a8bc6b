"""A suite whose twelve runs take seconds: six folds, two methods, one modality."""

SUITE = """
dataset = "simulated-ravdess"
label_set = "eight"
protocol = "folds6"
seeds = [0]

[training]
epochs = 2
learning_rate = 2e-3

[[table]]
features = { audio = "simulated-audio" }
methods = [{ name = "unimodal", options = { hidden = 8 } }, "majority"]
"""
