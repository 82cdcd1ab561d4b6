"""How models are computed: kernels for each kind of device, chosen once for an engine."""
