package registry

// Way is the carrier whose overhead a network's packets have between hosts:
// frames of a bridged network are in VXLAN whatever its carrier is.
func Way(segment, carrier string) string {
	if segment == "bridged" {
		return "vxlan"
	}
	return or(carrier, "auto")
}
