"""Training on Kaggle's machines: a script that is pushed, its session, its output."""
