// Package certificates makes one certificate authority for a cluster and the
// keys and certificates of its components. They live as long as the cluster,
// whose data is thrown away with it.
package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

const validity = 365 * 24 * time.Hour

// Authority signs the certificates of one cluster.
type Authority struct {
	folder      string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// Request is what a certificate says about its holder.
type Request struct {
	// File is the name of the files without their ending.
	File string
	// User and Groups are what Kubernetes reads from a client's certificate.
	User   string
	Groups []string
	// Names and Addresses are those that a server answers at.
	Names     []string
	Addresses []netip.Addr
}

// Files are the places of a key and its certificate, both PEM.
type Files struct {
	Certificate string
	Key         string
}

// NewAuthority makes the authority; its files are ca.crt and ca.key in the folder.
func NewAuthority(folder string) (*Authority, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := newTemplate("atomix-cluster")
	if err != nil {
		return nil, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	encoded, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the authority's own certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(encoded)
	if err != nil {
		return nil, err
	}
	authority := &Authority{folder: folder, certificate: certificate, key: key}
	return authority, writePair(authority.Files("ca"), encoded, key)
}

// Files tells where the key and certificate of that name are.
func (a *Authority) Files(name string) Files { return FilesIn(a.folder, name) }

// FilesIn tells where a folder holds the key and certificate of that name.
func FilesIn(folder, name string) Files {
	return Files{
		Certificate: filepath.Join(folder, name+".crt"),
		Key:         filepath.Join(folder, name+".key"),
	}
}

// Issue makes a key and a certificate that serves both as client and as server.
func (a *Authority) Issue(request Request) (Files, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Files{}, err
	}
	template, err := newTemplate(request.User)
	if err != nil {
		return Files{}, err
	}
	template.Subject.Organization = request.Groups
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	template.DNSNames = request.Names
	for _, address := range request.Addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(address.AsSlice()))
	}
	encoded, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return Files{}, fmt.Errorf("sign the certificate of %s: %w", request.User, err)
	}
	files := a.Files(request.File)
	return files, writePair(files, encoded, key)
}

func newTemplate(commonName string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: commonName},
		// Tolerates a clock that is set back a little.
		NotBefore: now.Add(-time.Hour),
		NotAfter:  now.Add(validity),
	}, nil
}

func writePair(files Files, certificate []byte, key *ecdsa.PrivateKey) error {
	encodedKey, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	keyText := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encodedKey})
	if err := os.WriteFile(files.Key, keyText, 0o600); err != nil {
		return err
	}
	certificateText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	return os.WriteFile(files.Certificate, certificateText, 0o644)
}
