"""Tables of many runs: ``sb3-flow sweep`` makes them, ``sb3-flow report`` reads them."""
