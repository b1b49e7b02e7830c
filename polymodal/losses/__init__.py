"""The mathematics that objectives share: pure functions of tensors and masks, no model, no modality."""
