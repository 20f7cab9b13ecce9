package certificates

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"os"
	"testing"
)

func TestIssuedCertificateIsValidForItsNamesAndUser(t *testing.T) {
	authority, err := NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	files, err := authority.Issue(Request{
		File: "node-1", User: "system:node:node-1", Groups: []string{"system:nodes"},
		Names: []string{"node-1"}, Addresses: []netip.Addr{netip.MustParseAddr("10.99.0.11")},
	})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	text, err := os.ReadFile(authority.Files("ca").Certificate)
	if err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatalf("read the authority's certificate: %v", err)
	}
	for _, name := range []string{"node-1", "10.99.0.11"} {
		options := x509.VerifyOptions{Roots: roots, DNSName: name, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		if _, err := pair.Leaf.Verify(options); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "node-2"}); err == nil {
		t.Error("the certificate is valid for another node")
	}
	if pair.Leaf.Subject.CommonName != "system:node:node-1" || pair.Leaf.Subject.Organization[0] != "system:nodes" {
		t.Errorf("the certificate names %s", pair.Leaf.Subject)
	}
}

func TestKubeconfigHoldsItsCertificates(t *testing.T) {
	authority, err := NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	admin, err := authority.Issue(Request{File: "admin", User: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	content, err := Kubeconfig("context", "https://10.99.0.1:6443", authority.Files("ca"), admin)
	if err != nil {
		t.Fatal(err)
	}
	var parsed struct {
		Users []struct {
			User map[string]string `json:"user"`
		} `json:"users"`
	}
	if err := json.Unmarshal(content, &parsed); err != nil {
		t.Fatal(err)
	}
	encoded := parsed.Users[0].User["client-certificate-data"]
	decoded, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	onDisk, err := os.ReadFile(admin.Certificate)
	if err != nil || string(decoded) != string(onDisk) {
		t.Fatalf("the kubeconfig holds another certificate (%v)", err)
	}
}
