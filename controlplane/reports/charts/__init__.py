# Charts of a sweep: Vega-Lite specs as plain trees, and the pictures of them.
