"""Label Studio, where people annotate and review: a server of one's own, or a team's."""
