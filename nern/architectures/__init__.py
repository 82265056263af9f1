"""Network architectures: recognised by names and shapes, rebuilt from a state_dict."""

from nern.architectures.registry import architectures, build, fit_of, groups, input_shape, paper_layers, recognise

__all__ = ["architectures", "build", "fit_of", "groups", "input_shape", "paper_layers", "recognise"]
