"""`yolact label` beside a plain Ray Data program: the same lake, the same stand-in GPUs, the same faults."""
