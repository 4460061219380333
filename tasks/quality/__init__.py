"""Which asset is reviewed first, who reviews it twice, what the gate accepts by itself."""
