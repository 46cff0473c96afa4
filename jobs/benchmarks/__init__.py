"""The parts of `yolact bench`, and measurements of single claims with their own commands."""
