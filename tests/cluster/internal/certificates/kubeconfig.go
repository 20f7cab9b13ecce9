package certificates

import (
	"encoding/json"
	"os"
)

// Kubeconfig renders a kubeconfig that holds its certificates in itself, so the
// file alone is enough. It is JSON, which every reader of kubeconfigs takes.
func Kubeconfig(context, server string, authority, client Files) ([]byte, error) {
	authorityText, err := os.ReadFile(authority.Certificate)
	if err != nil {
		return nil, err
	}
	certificate, err := os.ReadFile(client.Certificate)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(client.Key)
	if err != nil {
		return nil, err
	}
	type object = map[string]any
	return json.MarshalIndent(object{
		"apiVersion":      "v1",
		"kind":            "Config",
		"current-context": context,
		"clusters": []object{{"name": context, "cluster": object{
			"server": server, "certificate-authority-data": authorityText,
		}}},
		"users": []object{{"name": context, "user": object{
			"client-certificate-data": certificate, "client-key-data": key,
		}}},
		"contexts": []object{{"name": context, "context": object{
			"cluster": context, "user": context,
		}}},
	}, "", "  ")
}
