"""The single-view methods beside MVF-Net in its table 2: Tran et al. (2017), MoFA (2017), Genova et al. (2018).

One network (`regressor`) serves all three, with MVF-Net's encoder and pose head, so that only what they learn from differs.
"""
