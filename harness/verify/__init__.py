"""From opened states to findings: form, loss, update error, norm ratio, step attribution."""
