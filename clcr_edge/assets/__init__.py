"""What ships inside the package: trained weights, the speech model, and the streams that prove an export."""
