"""What every plugin imports: types and hooks of the contract, errors, the rule of clips, checks of used components."""
